"""Several models: how each is asked, with which key, and what its list adds to a request."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from backend.chat.models import NewMessage, Role, TextPart, Usage
from backend.config import Settings
from backend.errors import ConfigError, ProviderError
from executor.llm.events import TextDelta
from executor.llm.history import to_prompt_messages
from executor.llm.model import Prompt, ToolSpec
from executor.llm.models import Models, OpenModel, open_models
from executor.llm.titles import make_title
from tests.fakes.running import bodies_of, fake_server
from tests.plain_http import http_client

LOOK = ToolSpec("look", "Looks", {"type": "object", "properties": {}})


@pytest.fixture(scope="module")
async def urls() -> AsyncIterator[dict[str, str]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(fake_server(name)) for name in ("openai", "anthropic", "picky")}


def settings_of(*entries: dict[str, Any], **given: Any) -> Settings:
    return Settings(chat_models=json.dumps(entries), **given)


async def said(opened: OpenModel, text: str, *, effort: str | None = None, tools: tuple[ToolSpec, ...] = ()) -> str:
    prompt = Prompt("", to_prompt_messages([NewMessage(Role.USER, (TextPart(text),))]), tools, effort=effort)
    async with aclosing(opened.model.stream(prompt)) as events:
        return "".join([event.text async for event in events if isinstance(event, TextDelta)])


async def last_request(url: str) -> tuple[dict[str, Any], dict[str, str]]:
    async with http_client() as client:
        request = (await client.get(f"{url}/requests")).json()[-1]
    return request["body"], {name.lower(): value for name, value in request["headers"].items()}


def entries_of(urls: dict[str, str]) -> list[dict[str, Any]]:
    openai = {"model": "m", "base_url": f"{urls['openai']}/v1"}
    return [
        {**openai, "id": "plain"},
        {
            **openai,
            "id": "full",
            "key": "${MY_KEY}",
            "efforts": {"low": None, "deep": {"reasoning_effort": "high", "verbosity": "low"}},
            "headers": {"X-Team": "blue-${TEAM}"},
            "body": {"provider": {"sort": "price"}, "temperature": 0.5},
            "omit": ["stream_options"],
            "max_output_tokens": 77,
        },
        {"id": "claude", "provider": "anthropic", "model": "c", "base_url": urls["anthropic"], "efforts": ["low"]},
    ]


@pytest.fixture
async def models(urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Models]:
    monkeypatch.setenv("MY_KEY", "sk-mine")
    monkeypatch.setenv("TEAM", "9")
    async with open_models(settings_of(*entries_of(urls), chat_max_output_tokens=99)) as models:
        yield models


async def test_a_model_gets_its_key_headers_body_and_effort(urls: dict[str, str], models: Models) -> None:
    full = models.choose("full")
    assert await said(full, "/say Hello", effort="deep") == "Hello"
    body, headers = await last_request(urls["openai"])
    assert (headers["authorization"], headers["x-team"]) == ("Bearer sk-mine", "blue-9")
    assert body["provider"] == {"sort": "price"}
    assert (body["temperature"], body["reasoning_effort"], body["verbosity"]) == (0.5, "high", "low")
    assert "stream_options" not in body
    assert (full.max_output_tokens, models.choose("plain").max_output_tokens) == (77, 99)


async def test_a_model_gets_nothing_of_another_entry(urls: dict[str, str], models: Models) -> None:
    assert await said(models.choose("plain"), "/say Hello") == "Hello"
    body, headers = await last_request(urls["openai"])
    assert headers["authorization"] == "Bearer none"
    assert "x-team" not in headers
    assert not {"provider", "temperature", "reasoning_effort"} & body.keys()


async def test_the_effort_of_anthropic_is_in_the_output_config(urls: dict[str, str], models: Models) -> None:
    assert await said(models.choose("claude"), "/say Hello", effort="low") == "Hello"
    body, _ = await last_request(urls["anthropic"])
    assert body["output_config"] == {"effort": "low"}


async def test_an_effort_that_is_refused_is_left_out_and_remembered(
    urls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    entry = {"id": "m", "model": "m", "base_url": f"{urls['picky']}/no-effort/v1", "efforts": ["low", "high"]}
    async with open_models(settings_of(entry)) as models:
        for effort in ("high", "high", "low"):
            assert await said(models.default, "/say Hello", effort=effort, tools=(LOOK,)) == "Hello"
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.rpartition(": ")[2] for line in told] == [
        f"it refuses the effort {effort}, which is left out" for effort in ("high", "low")
    ]


async def test_an_effort_stays_if_a_member_of_the_same_name_as_one_inside_it_is_refused(urls: dict[str, str]) -> None:
    reasoning, mark = {"reasoning": {"max_tokens": 9000}}, uuid.uuid4().hex
    entry = {"id": "m", "model": "m", "base_url": f"{urls['picky']}/new-length/v1", "efforts": {"deep": reasoning}}
    async with open_models(settings_of(entry)) as models:
        assert await said(models.default, f"{mark}\n/say Hello", effort="deep") == "Hello"
    first, last = await bodies_of(urls["picky"], mark)
    assert first["reasoning"] == last["reasoning"] == reasoning["reasoning"]
    assert "max_tokens" not in last


@pytest.mark.parametrize("server", ["claude-calls", "claude-thinking"])
@pytest.mark.parametrize("place", ["body", "efforts"])
async def test_thinking_that_the_list_adds_is_given_up_like_ours(urls: dict[str, str], server: str, place: str) -> None:
    thinking, mark = {"thinking": {"type": "enabled", "budget_tokens": 1024}}, uuid.uuid4().hex
    added = {"body": thinking} if place == "body" else {"efforts": {"deep": thinking}, "effort": "deep"}
    entry = {"id": "m", "model": "m", "provider": "anthropic", "base_url": f"{urls['picky']}/{server}", **added}
    async with open_models(settings_of(entry)) as models:
        assert await said(models.default, f"{mark}\n/say Hello", effort=models.default.effort(None)) == "Hello"
    asked = await bodies_of(urls["picky"], mark)
    assert len(asked) <= 3
    assert "thinking" not in asked[-1]


async def test_keys_of_settings_go_to_their_own_servers_alone(urls: dict[str, str]) -> None:
    given = {"openai_api_key": "sk-openai", "anthropic_api_key": "sk-ant"}
    async with open_models(settings_of(*entries_of(urls)[:1], **given)) as models:
        await said(models.default, "/say Hello")
    assert (await last_request(urls["openai"]))[1]["authorization"] == "Bearer none"
    async with open_models(
        settings_of({"id": "gpt", "model": "m"}, {"id": "claude", "provider": "anthropic", "model": "m"}, **given)
    ) as models:
        keys = [models.choose(id).model._secrets[0] for id in ("gpt", "claude")]  # type: ignore[attr-defined]
    assert keys == ["sk-openai", "sk-ant"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("status", [200, 400, 403])
async def test_what_the_headers_of_a_model_hold_is_not_in_the_log(
    urls: dict[str, str], provider: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Cookie": "session=qwertz.me; team=blue-nine", "X-Account": "Custom poiuy-word"}
    url = urls[provider] if provider == "anthropic" else f"{urls[provider]}/v1"
    entry = {"id": "m", "model": "m", "provider": provider, "base_url": url, "headers": headers}
    caplog.set_level("INFO")
    async with open_models(settings_of(entry)) as models:
        for words in (headers["Cookie"], "session qwertz.me", "team blue-nine", "account poiuy-word"):
            document = json.dumps({"error": {"message": f"Unknown {words}.", "type": "invalid_request_error"}})
            streamed = ("text/event-stream", f"data: {document}\n\n")
            kind, text = streamed if status == 200 else ("application/json", document)
            with pytest.raises(ProviderError):
                await said(models.default, f"/body {status} 0 {kind} {json.dumps(text)}")
    logged = [vars(record)["error"] for record in caplog.records if "error" in vars(record)]
    assert len(logged) >= 4
    assert all("[REDACTED]" in line for line in logged)
    assert not any(secret in line for line in logged for secret in ("qwertz", "blue-nine", "poiuy"))


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"key": "${NOT_SET}"}, "key: the variable NOT_SET is not set"),
        ({"key": " "}, "key: is empty"),
        ({}, "key: is missing, and OPENAI_API_KEY is not set"),
        ({"provider": "anthropic"}, "key: is missing, and ANTHROPIC_API_KEY is not set"),
        (
            {"base_url": "https://openrouter.ai/api/v1"},
            "key: is missing, and OPEN_ROUTER_API_KEY is not set",
        ),
        ({"key": "k", "headers": {"x": "${NOT_SET}"}}, "headers.x: the variable NOT_SET is not set"),
    ],
)
async def test_a_missing_key_is_named_when_the_models_are_opened(entry: dict[str, Any], fault: str) -> None:
    settings = settings_of({"id": "one", "model": "m", **entry})
    with pytest.raises(ConfigError, match=f"^CHAT_MODELS: model one: {fault}$"):
        async with open_models(settings):
            pass


async def test_a_model_that_was_removed_is_told_once_and_the_default_answers(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    assert [models.choose(id).id for id in ("gone", "gone", "full", None)] == ["plain", "plain", "full", "plain"]
    assert [record.getMessage() for record in caplog.records] == [
        "a conversation's model is not in CHAT_MODELS; the default answers"
    ]


async def test_claude_behind_openrouter_gets_its_mark_for_the_cache(urls: dict[str, str]) -> None:
    """The SDK takes `cache_control` only among the members that it does not know."""
    from executor.llm.openai import OpenAIModel

    entry = {"id": "m", "model": "claude", "base_url": f"{urls['openai']}/v1"}
    async with open_models(settings_of(entry)) as models:
        opened = models.default
        assert isinstance(opened.model, OpenAIModel)
        opened.model._dialect._base_url = "https://openrouter.ai/api/v1"
        assert await said(opened, "/say Hello") == "Hello"
    assert (await last_request(urls["openai"]))[0]["cache_control"] == {"type": "ephemeral"}


async def test_titles_come_from_a_model_of_the_list_and_hold_no_reasoning(urls: dict[str, str]) -> None:
    small = {"id": "small", "model": "small", "base_url": f"{urls['openai']}/v1", "hidden": True}
    async with open_models(settings_of(*entries_of(urls)[:1], small, chat_title_model="small")) as models:
        assert models.title is not None
        assert models.title.model.name == "small"
        for script in ("/think What is it about?", "/quirk details\n/think What?", "/quirk reasoning\n/think What?"):
            assert await make_title(models.title.model, f'{script}\n/say "Baking Bread"') == "Baking Bread"
        assert await make_title(models.title.model, "/say <think>What?</think> Baking Bread") == "Baking Bread"
        assert await make_title(models.title.model, "/think Nothing but this") == "/think Nothing but this"


async def test_summaries_come_from_the_model_of_the_setting(urls: dict[str, str]) -> None:
    small = {"id": "small", "model": "small", "base_url": f"{urls['openai']}/v1", "hidden": True}
    small |= {"context_tokens": 3_000, "price": {"input": 1, "output": 1}}
    async with open_models(settings_of(*entries_of(urls)[:1], small, chat_summary_model="small")) as models:
        assert models.summary is not None
        assert (models.summary.id, models.summary.context_tokens) == ("small", 3_000)
        assert models.priced(models.summary, Usage(1_000_000)).cost == {"USD": 1}
    url = {"chat_provider": "openai", "chat_base_url": f"{urls['openai']}/v1", "chat_api_key": "k"}
    async with open_models(Settings(**url, chat_model="m", chat_summary_model="tiny")) as models:
        assert models.summary is not None
        assert (models.default.model.name, models.summary.model.name, models.summary.answers_as) == (
            "m",
            "tiny",
            "tiny",
        )

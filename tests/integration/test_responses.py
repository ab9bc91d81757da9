"""OpenAI's Responses API: what is asked, what goes back, what is given up, and what its events say.

The fake refuses what OpenAI refuses (`tests/fakes/responses_refusals.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from backend.chat.models import NewMessage, ReasoningPart, Role, TextPart, ToolCallPart, ToolResultPart, Usage
from backend.config import Settings, load_settings
from backend.errors import ConfigError
from executor.llm.events import Finished, Source
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt
from executor.llm.models import open_models
from executor.llm.providers import open_model, speaks_responses
from executor.llm.retrying import ModelCallLimits
from tests.fakes.responses_refusals import encrypted
from tests.fakes.running import bodies_of, fake_server
from tests.integration.running_api import RunningApi, running_api
from tests.integration.test_provider_histories import Talk
from tests.integration.test_providers import TOOLS, hear, opened, user
from tests.integration.test_summaries import settled
from tests.speed import limit

ONCE = ModelCallLimits(connect=limit(5), silence=limit(5), no_event=limit(5), backoff=0.01, attempts=1)
PRICE = {"input": 10, "output": 100, "cached": 1}
LOOKS = '/tool look {"at":"x"}\n/tool look {"at":"y"}'


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with fake_server("responses") as url:
        yield url


@asynccontextmanager
async def asked(url: str, name: str = "m") -> AsyncIterator[Model]:
    async with opened("responses", url, name=name, limits=ONCE) as model:
        yield model


@pytest.fixture
async def model(url: str) -> AsyncIterator[Model]:
    async with asked(url) as model:
        yield model


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_a_request_is_stateless_and_asks_for_encrypted_reasoning_and_its_summary(url: str, model: Model) -> None:
    mark = uuid.uuid4().hex
    prompt = Prompt("Be kind.", to_prompt_messages([user(f"{mark} hello")]), TOOLS, 10, cache_key="k1")
    assert [event async for event in model.stream(prompt)]
    (body,) = await bodies_of(url, mark)
    assert body == {
        "model": "m",
        "input": [{"role": "user", "content": f"{mark} hello"}],
        "stream": True,
        "store": False,
        "instructions": "Be kind.",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"summary": "auto"},
        "max_output_tokens": 16,
        "prompt_cache_key": "k1",
        "parallel_tool_calls": True,
        "tools": [
            {
                "type": "function", "name": "look", "description": "Looks", "parameters": TOOLS[0].parameters,
                "strict": False,
            }
        ],
    }  # fmt: skip


async def test_the_responses_api_is_the_default_at_openai_alone() -> None:
    assert speaks_responses("openai", None)
    assert speaks_responses("openai", "https://api.openai.com/v1")
    assert not speaks_responses("openai", "https://openrouter.ai/api/v1")
    assert not speaks_responses("openai", "http://127.0.0.1:8000/v1")
    assert not speaks_responses("openai-chat", None)
    assert speaks_responses("openai-responses", "https://name.openai.azure.com/openai/v1")
    given = {"chat_provider": "openai", "chat_api_key": "k", "chat_model": "m"}
    for base_url, decoder in ((None, "ResponsesDecoder"), ("http://127.0.0.1:9/v1", "OpenAIDecoder")):
        async with open_model(Settings(**given, chat_base_url=base_url)) as model:
            assert model._decoder.__name__ == decoder  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"body": {"reasoning_effort": "low"}}, r"body\.reasoning_effort is reasoning\.effort"),
        ({"efforts": {"deep": {"max_tokens": 9000}}}, r"efforts\.deep\.max_tokens is max_output_tokens"),
    ],
)
async def test_members_of_chat_completions_are_refused_at_the_start(more: dict[str, Any], fault: str) -> None:
    model = {"id": "m", "provider": "openai", "model": "m", "key": "k", **more}
    with pytest.raises(ConfigError, match=fault):
        async with open_models(load_settings(files=(), chat_models=json.dumps([model]))):
            pass
    chat = {**model, "provider": "openai-chat"}
    async with open_models(load_settings(files=(), chat_models=json.dumps([chat]))):
        pass


def test_a_model_that_thinks_without_a_summary_may_be_silent_for_longer() -> None:
    assert ModelCallLimits.of(None, "https://api.openai.com/v1", thinks_silently=True).silence == 300
    assert ModelCallLimits.of(900, "https://api.openai.com/v1", thinks_silently=True).silence == 900
    assert ModelCallLimits.of(900, "https://api.openai.com/v1").silence == 120


# --- what goes back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quirks", ["", "/quirk silent\n", "/quirk between\n", "/quirk phases\n", "/quirk no-deltas\n"])
async def test_reasoning_goes_back_as_it_was_and_where_it_was(url: str, model: Model, quirks: str) -> None:
    talk = Talk()
    question = f"{quirks}/think deep thought\n/say Looking.\n{LOOKS}\n/then\n{quirks}/think more\n/say Done"
    for _ in range(2):
        assert await talk.ask(model, question) == "Done"
    assert await talk.ask(model, "/say And now?") == "And now?"
    bodies = await bodies_of(url, talk.mark)
    assert len(bodies) == 5, "nothing was refused"
    sent = bodies[-1]["input"]
    reasoning = [item for item in sent if item.get("type") == "reasoning"]
    assert len(reasoning) == (8 if "between" in quirks else 4)
    assert all(item["encrypted_content"] == encrypted(item["id"]) for item in reasoning)
    summary = [] if "silent" in quirks else [{"type": "summary_text", "text": "deep thought"}]
    assert reasoning[0]["summary"] == summary
    phases = [item.get("phase") for item in sent if item.get("role") == "assistant"]
    assert phases == (["commentary", "final_answer"] * 2 if "phases" in quirks else [None] * 4)


async def test_the_steps_of_a_turn_with_reasoning_between_calls_keep_their_order(url: str, model: Model) -> None:
    talk = Talk()
    assert await talk.ask(model, f"/quirk between\n/say Looking.\n{LOOKS}\n/then\n/say Done") == "Done"
    sent = (await bodies_of(url, talk.mark))[-1]["input"]
    assert [item.get("role") or item["type"] for item in sent] == [
        "user", "assistant", "reasoning", "function_call", "reasoning", "function_call",
        "function_call_output", "function_call_output",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "script", [f"/think deep\n{LOOKS}", "/quirk between\n/think deep\n/say Looking.\n/tool look {}"]
)
async def test_a_turn_after_a_stopped_one_is_accepted(url: str, model: Model, script: str) -> None:
    talk = Talk()
    talk.rows.append(NewMessage(Role.USER, (TextPart(f"{talk.mark}\n{script}"),)))
    response = await talk.respond(model)
    assert response.calls
    assert await talk.ask(model, "/say Again") == "Again"
    assert len(await bodies_of(url, talk.mark)) == 2, "nothing was refused"


async def test_reasoning_that_nothing_followed_is_left_out(url: str, model: Model) -> None:
    """An answer that was stopped right after its reasoning, in a turn with tools."""
    talk = Talk()
    assert await talk.ask(model, f"/think deep\n{LOOKS}\n/then\n/think more\n/say Done") == "Done"
    *_, answer = talk.rows
    talk.rows[-1] = replace(answer, parts=tuple(part for part in answer.parts if isinstance(part, ReasoningPart)))
    assert await talk.ask(model, "/say Again") == "Again"
    bodies = await bodies_of(url, talk.mark)
    assert len(bodies) == 3, "nothing was refused"
    assert sum(item.get("type") == "reasoning" for item in bodies[-1]["input"]) == 1


async def test_another_models_reasoning_is_not_sent(url: str) -> None:
    talk = Talk()
    async with asked(url, "one") as one, asked(url, "other") as other:
        assert await talk.ask(one, f"/think deep\n{LOOKS}\n/then\n/say Done") == "Done"
        assert await talk.ask(other, "/say Hello") == "Hello"
    sent = (await bodies_of(url, talk.mark))[-1]["input"]
    assert not [item for item in sent if item.get("type") == "reasoning"]
    assert not [item for item in sent if item.get("call_id", "").startswith("call_")]


@pytest.mark.parametrize("name", ["new-key", "late-key"])
async def test_reasoning_that_the_server_cannot_read_is_left_out_for_the_conversation(url: str, name: str) -> None:
    """That happens after a change of the organisation: its key is needed to read the reasoning."""
    talk = Talk()
    async with asked(url, name) as model:
        assert await talk.ask(model, f"/think deep\n{LOOKS}\n/then\n/say Done") == "Done"
        assert len(await bodies_of(url, talk.mark)) == 3, "once more with the plain history"
        assert await talk.ask(model, "/say Hello") == "Hello"
        assert len(await bodies_of(url, talk.mark)) == 4, "the form is remembered"


# --- what is given up -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "left_out", "warnings"),
    [
        (
            "plain",
            {"include", "reasoning"},
            ["it gives no encrypted reasoning", "it gives no summary of its reasoning"],
        ),
        ("unverified", {"reasoning"}, ["it gives no summary of its reasoning"]),
        ("no-key", {"prompt_cache_key"}, ["it refuses prompt_cache_key; its prompts may cost more"]),
    ],
)
async def test_what_a_model_refuses_is_left_out_and_remembered(
    url: str, name: str, left_out: set[str], warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    mark = uuid.uuid4().hex
    prompt = Prompt("", to_prompt_messages([user(f"{mark} hello")]), TOOLS, cache_key="k")
    async with asked(url, name) as model:
        for _ in range(2):
            assert isinstance([event async for event in model.stream(prompt)][-1], Finished)
    first, *_, before, last = await bodies_of(url, mark)
    assert first.keys() - last.keys() == left_out
    assert before == last, "the second call began with what was learned"
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.partition(": ")[2] for line in told] == warnings


async def test_an_effort_is_asked_for_beside_the_summary_and_left_out_if_it_is_refused(url: str) -> None:
    mark = uuid.uuid4().hex
    entry = {"id": "m", "model": "m", "base_url": f"{url}/v1", "provider": "openai-responses"}
    listed = {**entry, "efforts": ["high", "extreme"], "body": {"reasoning": {"mode": "pro"}}}
    async with open_models(Settings(chat_models=json.dumps([listed]))) as models:
        for effort in ("high", "extreme", None):
            prompt = Prompt("", to_prompt_messages([user(f"{mark} hello")]), effort=effort)
            assert [event async for event in models.default.model.stream(prompt)]
    asked = [body["reasoning"] for body in await bodies_of(url, mark)]
    assert asked == [
        {"summary": "auto", "effort": "high"}, {"summary": "auto", "effort": "extreme"},
        {"summary": "auto", "mode": "pro"}, {"summary": "auto", "mode": "pro"},
    ]  # fmt: skip


async def test_a_prompt_that_is_too_long_is_cut(url: str) -> None:
    mark = uuid.uuid4().hex
    rows = [
        message for _ in range(6) for message in (user("word " * 300), NewMessage(Role.ASSISTANT, (TextPart("ok"),)))
    ]
    async with asked(url, "small") as model:
        heard = await hear(model, to_prompt_messages([*rows, user(f"{mark}\n/say Short")]))
    assert (heard.text, heard.error) == ("Short", None)
    assert len(await bodies_of(url, mark)) > 1


async def test_a_prompt_that_is_too_long_may_be_told_inside_the_stream(url: str, model: Model) -> None:
    """That is how the Responses API tells it to clients that stream."""
    mark = uuid.uuid4().hex
    rows = [
        message for _ in range(6) for message in (user("word " * 300), NewMessage(Role.ASSISTANT, (TextPart("ok"),)))
    ]
    heard = await hear(model, to_prompt_messages([*rows, user(f"{mark}\n/error failed-context 1\n/say Short")]))
    assert (heard.text, heard.error) == ("Short", None)
    first, second = await bodies_of(url, mark)
    assert len(json.dumps(second)) < len(json.dumps(first))


# --- events -----------------------------------------------------------------------------------------------------------


async def test_a_refusal_is_shown_and_told_apart(model: Model) -> None:
    heard = await hear(model, "/say Well.\n/finish refusal I will not do that.")
    assert heard.text == "Well.I will not do that."
    assert heard.finished is not None
    assert heard.finished.reason == "content-filter"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("/error failed-overloaded", "overloaded"),
        ("/error failed-server_error", "provider_error"),
        ("/error failed-context", "context_too_long"),
        ("/error failed-policy", "content_filter"),
        ("/error policy", "content_filter"),
        ("/quirk nested-error\n/error overloaded", "overloaded"),
        ("/say Seen\n/error failed-server_error", "provider_error"),
        ("/say Seen\n/quirk nested-error\n/error server_error", "provider_error"),
    ],
)
async def test_a_response_that_failed_has_the_code_of_its_error(model: Model, script: str, code: str) -> None:
    heard = await hear(model, script)
    assert heard.error is not None
    assert heard.error.code == code
    assert heard.text == ("Seen" if "Seen" in script else "")


@pytest.mark.parametrize("quirk", ["no-deltas", "interleave", "unknown"])
async def test_items_may_come_whole_and_unknown_ones_are_ignored(model: Model, quirk: str) -> None:
    heard = await hear(
        model, f'/quirk {quirk}\n/think Hm\n/say Looking\n/cite {{"url":"https://a.b/","title":"A"}}\n{LOOKS}'
    )
    assert (heard.reasoning, heard.text, heard.error) == ("Hm", "Looking", None)
    assert heard.sources == [Source("https://a.b/", "A")]
    assert [given for _, _, given in heard.calls] == [{"at": "x"}, {"at": "y"}]
    assert heard.finished == Finished("tool-calls", Usage(11, 2, 1, 4))


async def test_an_answer_without_counts_is_an_answer(model: Model) -> None:
    heard = await hear(model, "/quirk no-usage\n/say Fine")
    assert heard.finished == Finished("stop", Usage())


async def test_reasoning_in_tags_of_a_server_without_a_parser_is_reasoning(model: Model) -> None:
    heard = await hear(model, '/raw "<think>Hm"\n/raw " hm</think>\\n\\nFine"')
    assert (heard.reasoning, heard.text) == ("Hm hm", "Fine")
    assert heard.order == ["ReasoningDelta", "ReasoningEnd", "TextDelta", "Finished"]


WHOLE = {
    "id": "resp_1", "object": "response", "status": "completed", "error": None, "model": "m",
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "One."},
                                                        {"type": "summary_text", "text": "Two."}]},
        {"id": "msg_1", "type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "Let me look.", "annotations": []}]},
        {"id": "fc_1", "type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at":"x"}'},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}},
}  # fmt: skip


async def test_a_whole_response_in_place_of_a_stream_is_an_answer(model: Model) -> None:
    heard = await hear(model, f"/body 200 0 application/json {json.dumps(json.dumps(WHOLE))}")
    assert (heard.reasoning, heard.text, heard.error) == ("One.\n\nTwo.", "Let me look.", None)
    assert [(name, given) for name, _, given in heard.calls] == [("look", {"at": "x"})]
    assert heard.finished == Finished("tool-calls", Usage(5, 2, 0, 3))


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({**WHOLE, "status": "failed", "error": {"code": "rate_limit_exceeded", "message": "Slow"}}, "rate_limited"),
        ({**WHOLE, "status": "failed", "output": []}, "provider_error"),
        ({**WHOLE, "status": "in_progress", "output": []}, "provider_incomplete"),
    ],
)
async def test_a_whole_response_may_be_a_failure(model: Model, document: dict[str, Any], code: str) -> None:
    heard = await hear(model, f"/body 200 0 application/json {json.dumps(json.dumps(document))}")
    assert heard.error is not None
    assert heard.error.code == code


# --- all the way ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, url: str) -> AsyncIterator[RunningApi]:
    at: dict[str, Any] = {"base_url": f"{url}/v1", "key": "k", "provider": "openai-responses"}
    entries = [
        {**at, "id": "dear", "model": "m", "price": PRICE},
        {**at, "id": "wrong", "model": "m", "key": "wrong", "fallback": "dear"},
        {**at, "id": "small", "model": "caches", "context_tokens": 16_000, "max_output_tokens": 512},
        {**at, "id": "titles", "model": "t", "hidden": True, "price": {**PRICE, "currency": "EUR"}},
    ]
    settings = {"chat_provider": None, "chat_models": json.dumps(entries), "chat_title_model": "titles"}
    async with running_api(postgres_dsn, redis_dsn, **settings) as api:
        yield api


async def test_a_turn_has_reasoning_tools_cost_and_a_title(api: RunningApi) -> None:
    session = await api.new_session()
    page = '/tool get_doc_page {"path": "x"}'
    told = await api.say(session, f"/think deep\n/say Looking.\n{page}\n{page}\n/then\n/think more\n/say Done")
    metadata = told.chunks[-1]["messageMetadata"]
    assert (metadata["status"], metadata["model"], told.text) == ("completed", "dear", "Looking.Done")
    assert [part["text"] for part in told.parts if part["type"] == "reasoning"] == ["deep", "more"]
    usage = metadata["usage"]
    assert (usage["inputTokens"], usage["cachedInputTokens"]) == (22, 8)
    assert metadata["cost"]["USD"] == pytest.approx((14 * 10 + 8 + usage["outputTokens"] * 100) / 1_000_000)
    async with asyncio.timeout(limit(10)):
        while "EUR" not in (shown := await api.session(session))["usage"]["cost"]:
            await asyncio.sleep(0.02)  # the title may come after the answer
    assert shown["title"] == "Looking"
    assert shown["usage"]["cost"]["USD"] == metadata["cost"]["USD"], "a title costs the session, and not the answer"
    assert shown["usage"]["input_tokens"] > usage["inputTokens"]
    assert "gAAAA" not in json.dumps(await api.session(session, format="ui")), "clients do not see data of the provider"


async def test_a_fallback_answers_for_it(api: RunningApi) -> None:
    told = await api.say(await api.new_session(), "/say Hello", model="wrong")
    assert (told.text, told.chunks[-1]["messageMetadata"]["model"]) == ("Hello", "dear")


async def test_a_long_conversation_is_summarised(api: RunningApi, url: str) -> None:
    session, mark = await api.new_session(), uuid.uuid4().hex
    for turn in range(7):
        fact = "FACT: the cat is called Mimi. " if turn == 0 else ""
        await api.say(session, f"{mark} {turn} {fact}{'word ' * 2_000}\n/say ok", model="small")
    await settled(api, session)
    told = await api.say(session, f"{mark} what is it called?\n/say Mimi", model="small")
    assert told.text == "Mimi"
    assert "In short. FACT: the cat is called Mimi." in json.dumps((await bodies_of(url, mark))[-1]["input"][0])


async def test_call_ids_and_tools_of_other_models_are_accepted(model: Model) -> None:
    rows = [
        user("look"),
        NewMessage(Role.ASSISTANT, (ToolCallPart("toolu_1", "look", {"at": "x"}),)),
        NewMessage(Role.TOOL, (ToolResultPart("toolu_1", "look", ""),)),
        user("/say Seen"),
    ]
    heard = await hear(model, to_prompt_messages(rows))
    assert (heard.text, heard.error) == ("Seen", None)

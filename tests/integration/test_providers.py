"""Real providers' wires: the OpenAI-compatible and the Anthropic provider against servers of their own processes."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from backend.chat.models import (
    Json,
    NewMessage,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from backend.config import Settings
from backend.errors import ConfigError, ProviderError
from executor.llm import providers
from executor.llm.arguments import parse_arguments
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    Source,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageSoFar,
)
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt, ToolSpec
from executor.llm.models import open_models
from executor.llm.providers import check_models, open_model
from executor.llm.retrying import ModelCallLimits
from executor.llm.titles import make_title
from tests.fakes.running import fake_server, requests_of
from tests.speed import limit

QUICK = ModelCallLimits(connect=limit(5), first_byte=limit(1.5), silence=limit(1.5), no_event=limit(0.8), backoff=0.01)
TOOLS = (ToolSpec("look", "Looks", {"type": "object", "properties": {"at": {"type": "string"}}}),)
PROVIDERS = ("openai", "anthropic", "responses")


@pytest.fixture(scope="session")
async def urls() -> AsyncIterator[dict[str, str]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(fake_server(name)) for name in PROVIDERS}


@asynccontextmanager
async def opened(
    provider: str, url: str, *, name: str = "m", key: str = "k", limits: ModelCallLimits = QUICK
) -> AsyncIterator[Model]:
    settings = Settings(
        chat_provider="openai-responses" if provider == "responses" else provider,
        chat_api_key=key,
        chat_base_url=f"{url}/v1",
    )
    # the SDKs are imported by the worker that runs these tests, not by all that collect them
    from executor.llm.anthropic import open_anthropic
    from executor.llm.openai import open_openai

    opening = (
        open_anthropic(settings, name, limits)
        if provider == "anthropic"
        else open_openai(settings, name, limits, responses=provider == "responses")
    )
    async with opening as model:
        yield model


@pytest.fixture(scope="session", params=PROVIDERS)
async def model(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Model]:
    async with opened(request.param, urls[request.param], name=f"m-{request.param}") as model:
        yield model


@dataclass
class Heard:
    """The pieces, the end and the error of one model call."""

    text: str = ""
    reasoning: str = ""
    ends: list[ReasoningEnd] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    calls: list[tuple[str, str, Json]] = field(default_factory=list)
    finished: Finished | None = None
    error: ProviderError | None = None
    order: list[str] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)


async def hear(model: Model, asked: str | Sequence[NewMessage], *, tools: Sequence[ToolSpec] = TOOLS) -> Heard:
    """Runs one model call; a text is made unique, so that the fake counts its tries."""
    messages = to_prompt_messages([user(f"{asked}\n{uuid.uuid4().hex}")]) if isinstance(asked, str) else asked
    heard = Heard()
    texts: dict[int, str] = {}
    started: dict[int, ToolCallStart] = {}
    prompt = Prompt("Be kind.", messages, tools, 100)
    try:
        async with asyncio.timeout(limit(30)), aclosing(model.stream(prompt)) as events:
            async for event in events:
                _hear(event, heard, texts, started)
    except ProviderError as error:
        heard.error = error
    return heard


def _hear(event: ModelEvent, heard: Heard, texts: dict[int, str], started: dict[int, ToolCallStart]) -> None:
    assert heard.finished is None, "nothing comes after Finished"
    if isinstance(event, UsageSoFar):
        heard.usages.append(event.usage)
        return
    if not heard.order or heard.order[-1] != type(event).__name__:
        heard.order.append(type(event).__name__)
    match event:
        case TextDelta():
            assert event.text
            heard.text += event.text
        case ReasoningDelta():
            heard.reasoning += event.text
        case ReasoningEnd():
            heard.ends.append(event)
        case Source():
            heard.sources.append(event)
        case ToolCallStart():
            assert event.index == len(started)
            started[event.index], texts[event.index] = event, ""
        case ToolCallDelta():
            texts[event.index] += event.json_text
        case ToolCallEnd():
            start = started[event.index]
            heard.calls.append((start.name, start.id, parse_arguments(texts[event.index])))
        case Finished():
            assert len(heard.calls) == len(started), "every call ends"
            heard.finished = event


def user(text: str) -> NewMessage:
    return NewMessage(Role.USER, (TextPart(text),))


def provider_of(model: Model) -> str:
    return model.name.removeprefix("m-")


def url_of(model: Model, urls: dict[str, str]) -> str:
    return urls[provider_of(model)]


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_text_comes_word_by_word_with_its_usage(model: Model) -> None:
    heard = await hear(model, "/say Hello there, friend")
    assert (heard.text, heard.error) == ("Hello there, friend", None)
    assert heard.finished == Finished("stop", Usage(11, 3, 0, 4))


async def test_reasoning_comes_before_the_text_and_is_closed(model: Model) -> None:
    heard = await hear(model, "/think I must think\n/say Done")
    assert (heard.reasoning, heard.text) == ("I must think", "Done")
    assert heard.order == ["ReasoningDelta", "ReasoningEnd", "TextDelta", "Finished"]
    assert heard.finished is not None
    assert heard.finished.usage.reasoning_tokens == 3
    assert (heard.ends[0].signature is None) is (provider_of(model) != "anthropic")


async def test_the_pages_that_an_answer_cites_are_named(model: Model) -> None:
    page = {"url": "https://example.org/a?b=ü", "title": "One  \n page"}
    bad = {"url": "javascript:alert(1)", "title": "Another"}
    told = f"/say First.\n/cite {json.dumps(page)}\n/cite {json.dumps(bad)}\n/say Then."
    heard = await hear(model, told)
    assert (heard.text, heard.error) == ("First.Then.", None)
    assert heard.sources == [Source("https://example.org/a?b=ü", "One page")]
    assert heard.order == ["TextDelta", "Source", "TextDelta", "Finished"]


async def test_parallel_tool_calls_with_split_json_come_whole(model: Model) -> None:
    heard = await hear(
        model, '/say Let me look.\n/tool look {"at":"the sky, \\u00e9 \U0001f600"}\n/tool look {"at":[1,{}]}'
    )
    assert [(name, given) for name, _, given in heard.calls] == [
        ("look", {"at": "the sky, é \U0001f600"}),
        ("look", {"at": [1, {}]}),
    ]
    assert len({call_id for _, call_id, _ in heard.calls}) == 2
    assert heard.finished is not None
    assert heard.finished.reason == "tool-calls"


async def test_a_call_whose_json_cannot_be_read_is_given_as_text(model: Model) -> None:
    heard = await hear(model, '/tool look {"at": "the\n/tool look')
    assert [given for _, _, given in heard.calls] == ['{"at": "the', {}]


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (("length", "max_tokens", "max_output_tokens"), "length"),
        (("content_filter", "refusal", "content_filter"), "content-filter"),
        (("stop", "stop_sequence", "completed"), "stop"),
        (("something_new", "something_new", "something_new"), "other"),
        (("function_call", "pause_turn", "completed"), "stop"),
        (("length", "model_context_window_exceeded", "max_messages"), "length"),
        (("tool_calls", "end_turn", "completed"), "stop"),
    ],
)
async def test_each_finish_reason_is_known(model: Model, reasons: tuple[str, ...], expected: str) -> None:
    reason = reasons[PROVIDERS.index(provider_of(model))]
    heard = await hear(model, f"/say Well\n/finish {reason}")
    assert heard.finished is not None
    assert heard.text == "Well"
    assert heard.finished.reason == expected


ODD_TEXTS = [
    "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
    "data: x\r\n\r\nevent: y\rid: 1\n",
    "smile \U0001f600 and é",
    "\ufeff\u200b",
]


@pytest.mark.parametrize("text", ODD_TEXTS)
async def test_any_text_survives(model: Model, text: str) -> None:
    assert (await hear(model, f"/raw {json.dumps(text)}")).text == text


async def test_halves_of_a_pair_in_two_deltas_are_joined_and_lone_ones_replaced(model: Model) -> None:
    heard = await hear(model, '/raw "a\\ud83d"\n/raw "\\ude00b"\n/raw "\\ude00-\\ud83d"\n/raw "x\\u0000y\\ud83d"')
    assert heard.text == "a\U0001f600b\ufffd-\ufffdxy\ufffd"
    assert heard.finished is not None


async def test_a_large_answer_comes_whole(model: Model) -> None:
    assert (await hear(model, "/stream 3000")).text == "".join(f"{number} " for number in range(3000))


async def test_a_tool_loop_sends_calls_results_and_reasoning_back(model: Model, urls: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    question = user(f'{mark}\n/think deep thought\n/say Looking.\n/tool look {{"at":"x"}}\n/tool look {{"at":"y"}}')
    first = await hear(model, [question])
    rows = [question, *answer_rows(first)]
    second = await hear(model, to_prompt_messages(rows))
    assert second.error is None
    assert second.text == 'The tools answered {"type":"seen","message":"0"} and {"type":"seen","message":"1"}'
    body = (await requests_of(url_of(model, urls), mark))[-1]["body"]
    if provider_of(model) == "openai":
        assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool", "tool"]
        assert "thought" not in json.dumps(body["messages"][2])
    elif provider_of(model) == "responses":
        kinds = [item.get("role") or item["type"] for item in body["input"]]
        assert kinds == ["user", "assistant", *["function_call"] * 2, *["function_call_output"] * 2]
    else:
        kinds = [block["type"] for block in body["messages"][1]["content"]]
        assert kinds == ["thinking", "text", "tool_use", "tool_use"]
        assert body["messages"][-1]["content"][-1]["cache_control"] == {"type": "ephemeral"}


def answer_rows(heard: Heard) -> list[NewMessage]:
    parts: list[Part] = [ReasoningPart(heard.reasoning, end.signature, end.redacted) for end in heard.ends]
    parts += [TextPart(heard.text)] if heard.text else []
    parts += [ToolCallPart(call_id, name, given) for name, call_id, given in heard.calls]
    results = [
        NewMessage(Role.TOOL, (ToolResultPart(call_id, name, {"type": "seen", "message": str(number)}),))
        for number, (name, call_id, _) in enumerate(heard.calls)
    ]
    return [NewMessage(Role.ASSISTANT, tuple(parts)), *results]


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    ["/status 429 2 0.02", "/status 500 3", "/status 503 1", "/status 408 1", "/status 409 1", "/drop 1", "/end 2",
     "/error overloaded 1", "/error server_error 1"],
)  # fmt: skip
async def test_what_fails_before_the_first_event_is_tried_again(model: Model, script: str) -> None:
    heard = await hear(model, f"{script}\n/say At last")
    assert (heard.text, heard.error) == ("At last", None)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("/status 400", "bad_request"),
        ("/status 401", "authentication"),
        ("/status 402", "quota_exceeded"),
        ("/status 404", "bad_request"),
        ("/status 413", "context_too_long"),
        ("/status 429", "rate_limited"),
        ("/status 500", "provider_error"),
        ("/status 529", "overloaded"),
        ("/error overloaded", "overloaded"),
        ("/error context", "context_too_long"),
        ("/error server_error", "provider_error"),
        ("/drop", "connection"),
        ("/end", "provider_incomplete"),
        ("/ping 20", "timeout"),
    ],
)
async def test_failures_have_stable_codes_and_sentences_without_secrets(model: Model, script: str, code: str) -> None:
    heard = await hear(model, f"{script}")
    assert heard.error is not None
    assert heard.error.code == code
    sentence = str(heard.error)
    assert sentence.endswith(".")
    assert not any(odd in sentence for odd in ("sk-", "http", "127.0.0.1", "{", "org-"))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("/drop", "provider_incomplete"),
        ("/end", "provider_incomplete"),
        ("/error overloaded", "overloaded"),
        ("/hang", "timeout"),
    ],
)
async def test_nothing_is_tried_again_after_the_first_delta(
    model: Model, urls: dict[str, str], script: str, code: str
) -> None:
    mark = uuid.uuid4().hex
    heard = await hear(model, [user(f"{mark}\n/say Seen\n{script}\n/say unseen")])
    assert heard.text == "Seen"
    assert heard.finished is None
    assert heard.error is not None
    assert heard.error.code == code
    assert len(await requests_of(url_of(model, urls), mark)) == 1


async def test_there_is_one_layer_of_retries(model: Model, urls: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    heard = await hear(model, [user(f"{mark}\n/status 500")])
    assert heard.error is not None
    assert len(await requests_of(url_of(model, urls), mark)) == QUICK.attempts


async def test_a_refused_request_is_not_tried_again(model: Model, urls: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    assert (await hear(model, [user(f"{mark}\n/status 400")])).error is not None
    assert len(await requests_of(url_of(model, urls), mark)) == 1


async def test_a_provider_that_asks_for_a_long_wait_is_not_waited_for(model: Model) -> None:
    heard = await hear(model, "/status 429 1 3600\n/say no")
    assert heard.error is not None
    assert heard.error.code == "rate_limited"


async def test_a_slow_first_byte_is_waited_for_up_to_the_limit(urls: dict[str, str]) -> None:
    for provider in PROVIDERS:
        async with opened(
            provider, urls[provider], limits=ModelCallLimits(first_byte=limit(0.6), connect=limit(0.6))
        ) as model:
            assert (await hear(model, "/slow 0.05\n/say In time")).text == "In time"
            mark = uuid.uuid4().hex
            late = await hear(model, [user(f"{mark}\n/slow 600\n/say Late")])
            assert late.error is not None
            assert late.error.code == "timeout"
            assert len(await requests_of(urls[provider], mark)) == 1, "whoever asks again loses his place in the line"


async def test_a_wrong_key_and_a_dead_server_are_reported(
    urls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    for provider in PROVIDERS:
        async with opened(provider, urls[provider], key="wrong") as model:
            heard = await hear(model, "/say Hello")
            assert heard.error is not None
            assert heard.error.code == "authentication"
        async with opened(provider, "http://127.0.0.1:9") as model:
            heard = await hear(model, "/say Hello")
            assert heard.error is not None
            assert heard.error.code == "connection"
            assert "Connection refused, at http://127.0.0.1:9)" in caplog.messages[-1]


async def test_a_key_in_an_error_that_came_with_the_status_200_is_not_logged(
    urls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """The key is a word of the sentence that the fakes give."""
    for provider in PROVIDERS:
        key = "Overloaded" if provider == "anthropic" else "overloaded"
        async with opened(provider, urls[provider], key=key) as model:
            assert (await hear(model, "/error overloaded")).error is not None
    failed = [record for record in caplog.records if "model call failed" in record.message]
    assert len(failed) == len(PROVIDERS)
    assert all("[REDACTED]" in record.error for record in failed)  # type: ignore[attr-defined]
    assert not [record for record in caplog.records if "overloaded" in str(getattr(record, "error", "")).lower()]


async def test_a_connection_that_breaks_after_the_reason_is_an_answer(urls: dict[str, str]) -> None:
    async with opened("openai", urls["openai"]) as model:
        for quirks in ("/quirk no-done\n/quirk no-usage", "/quirk cut-end"):
            heard = await hear(model, f"/say All is said\n{quirks}")
            assert heard.text == "All is said"
            assert heard.finished == Finished("stop", Usage())


async def test_one_connection_serves_one_call_after_the_other(model: Model, urls: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    for _ in range(3):
        await hear(model, [user(f"{mark}\n/say Hello")])
    assert len({request["peer"] for request in await requests_of(url_of(model, urls), mark)}) == 1


async def test_leaving_in_the_middle_closes_the_connection_and_the_model_goes_on(model: Model) -> None:
    async with aclosing(model.stream(Prompt("", [user("/say one two three\n/hang")]))) as events:
        async for event in events:
            if not isinstance(event, UsageSoFar):
                assert event == TextDelta("one")
                break
    assert (await hear(model, "/say still here")).text == "still here"


async def test_a_cancelled_call_ends_at_once(model: Model) -> None:
    job = asyncio.create_task(hear(model, "/hang"))
    await asyncio.sleep(0)
    job.cancel()
    async with asyncio.timeout(limit(20)):
        with pytest.raises(asyncio.CancelledError):
            await job


# --- quirks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quirk", ["reasoning", "details", "comments", "crlf", "usage-with-choice"])
async def test_dialects_of_text_and_reasoning_are_read_alike(urls: dict[str, str], quirk: str) -> None:
    async with opened("openai", urls["openai"]) as model:
        heard = await hear(model, f"/quirk {quirk}\n/think So be it\n/say Fine, thanks")
        assert (heard.reasoning, heard.text) == ("So be it", "Fine, thanks")
        assert heard.finished is not None
        assert (heard.finished.reason, heard.finished.usage) == ("stop", Usage(11, 5, 3, 4))


@pytest.mark.parametrize(
    "quirks",
    [
        ("no-ids",),
        ("no-index",),
        ("no-ids", "no-index"),
        ("one-index",),
        ("late-name",),
        ("interleave",),
        ("interleave", "no-ids"),
    ],
)
async def test_dialects_of_tool_calls_are_read_alike(urls: dict[str, str], quirks: tuple[str, ...]) -> None:
    async with opened("openai", urls["openai"]) as model:
        script = "\n".join(f"/quirk {quirk}" for quirk in quirks)
        heard = await hear(model, f'{script}\n/tool look {{"at":"the first"}}\n/tool peek {{"at":"the second"}}')
        assert [(name, given["at"]) for name, _, given in heard.calls] == [
            ("look", "the first"),
            ("peek", "the second"),
        ]
        assert len({call_id for _, call_id, _ in heard.calls}) == 2


@pytest.mark.parametrize("name", ["old-limits", "no-effort", "no-options"])
async def test_a_setting_that_an_openai_model_refuses_is_given_up(urls: dict[str, str], name: str) -> None:
    mark = uuid.uuid4().hex
    async with opened("openai", urls["openai"], name=name) as model:
        for _ in range(2):
            assert (await hear(model, [user(f"{mark}\n/say Here")])).text == "Here"
    assert len(await requests_of(urls["openai"], mark)) == 3, "asked once in vain, and then known"


@pytest.mark.parametrize("name", ["no-thinking", "no-thoughts"])
async def test_a_setting_that_an_anthropic_model_refuses_is_given_up(urls: dict[str, str], name: str) -> None:
    async with opened("anthropic", urls["anthropic"], name=name) as model:
        question = user(f'{uuid.uuid4().hex}\n/think Hm\n/tool look {{"at":"x"}}')
        first = await hear(model, [question])
        second = await hear(model, to_prompt_messages([question, *answer_rows(first)]))
        assert second.error is None
        assert second.text.startswith("The tools answered")


async def test_openai_pages_may_come_with_the_end(urls: dict[str, str]) -> None:
    async with opened("openai", urls["openai"]) as model:
        heard = await hear(model, '/quirk late-pages\n/cite {"url":"http://a.b/"}\n/say Fine')
    assert heard.sources == [Source("http://a.b/")]


async def test_anthropic_reasoning_may_be_redacted_and_goes_back_as_it_was(urls: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    async with opened("anthropic", urls["anthropic"]) as model:
        question = user(f'{mark}\n/quirk redacted\n/quirk whole-input\n/think Hm\n/tool look {{"at":"x"}}')
        first = await hear(model, [question])
        assert [(end.redacted, end.signature) for end in first.ends] == [("opaque==", None)]
        assert first.calls[0][2] == {"at": "x"}
        await hear(model, to_prompt_messages([question, *answer_rows(first)]))
    body = (await requests_of(urls["anthropic"], mark))[-1]["body"]
    assert body["messages"][1]["content"][0] == {"type": "redacted_thinking", "data": "opaque=="}


# --- opening ----------------------------------------------------------------------------------------------------------


def settings_of(**given: Any) -> Settings:
    return Settings(**given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"chat_provider": "openai"}, "CHAT_API_KEY"),
        ({"chat_provider": "anthropic"}, "ANTHROPIC_API_KEY"),
        (
            {"chat_provider": "claude_agent", "chat_api_key": "k"},
            r"^CHAT_PROVIDER=claude_agent needs [^\n]+\[claude\]'$",
        ),
        ({"chat_provider": "openai", "chat_base_url": "http://127.0.0.1:1/v1"}, "CHAT_MODEL"),
        (
            {"chat_provider": "openai", "openai_base_url": "http://127.0.0.1:1/v1"},
            "server of OPENAI_BASE_URL has no default model",
        ),
        (
            {"chat_models": '[{"id": "a", "model": "a"}, {"id": "b", "model": "b", "key": "${NOT_SET_HERE}"}]'},
            r"model a: key: is missing.*\n.*model b: key: the variable NOT_SET_HERE is not set",
        ),
    ],
)
async def test_a_missing_setting_is_named(given: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "find_spec", lambda _: None)
    for name in ("CHAT_API_KEY", "OPENAI_API_KEY", "OPEN_ROUTER_API_KEY", "ANTHROPIC_API_KEY", "CHAT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=named):
        check_models(settings_of(**given))
    if "chat_models" not in given:
        with pytest.raises(ConfigError, match=named):
            async with open_model(settings_of(**given)):
                pass


async def test_each_provider_has_a_default_model(urls: dict[str, str]) -> None:
    async with open_model(settings_of(chat_provider="openai", chat_api_key="k")) as model:
        assert model.name == "gpt-6-sol"
    async with open_model(settings_of(open_router_api_key="k")) as model:
        assert model.name == "openrouter/auto"
    async with open_model(settings_of(chat_provider="anthropic", chat_api_key="k")) as model:
        assert model.name == "claude-sonnet-5-5"
    async with open_model(settings_of(chat_provider="openai", chat_base_url=urls["openai"], chat_model="x")) as model:
        assert (model.name, (await hear(model, "/say No key needed")).text) == ("x", "No key needed")


async def test_titles_come_from_the_title_model_and_else_from_the_first_words(urls: dict[str, str]) -> None:
    given = {"chat_provider": "openai", "chat_api_key": "k", "chat_base_url": urls["openai"], "chat_model": "m"}
    async with open_models(settings_of(**given)) as models:
        assert models.title is None
        assert await make_title(models.title, "  How do I\nbake bread? ") == "How do I bake bread?"
    async with open_models(settings_of(**given, chat_title_model="small")) as models:
        assert models.title is not None
        model = models.title.model
        assert model is not None
        assert model.name == "small"
        assert await make_title(model, '/say "Baking Bread"') == "Baking Bread"
        assert await make_title(model, "/think What is it about?\n/say Baking Bread") == "Baking Bread"
        assert await make_title(model, "/say <think>What is it about?</think> Baking Bread") == "Baking Bread"
        assert await make_title(model, "/say What is it about? </think> Baking Bread") == "Baking Bread"
        assert await make_title(model, "/think Too long\n/finish length") == "/think Too long /finish length"
        assert await make_title(model, "/status 400") == "/status 400"
        assert await make_title(model, "/hang", time_limit=limit(0.5)) == "/hang"
        assert await make_title(model, "/finish length") == "/finish length"

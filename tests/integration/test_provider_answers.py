"""Answers and errors as servers give them, over real HTTP: whole documents, web pages, lists, hang-ups, waits.

The bodies follow the pages of the providers as of 2026-11: Google "Gemini API: OpenAI compatibility" and
google.rpc.RetryInfo, Groq "Error codes" and "Rate limits", LiteLLM proxy "Response headers", OpenAI "Error codes".
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from backend.chat.models import Usage
from executor.llm.events import Finished
from executor.llm.retrying import OWN_SERVER_FIRST_BYTE, ModelCallLimits
from tests.fakes.running import fake_server
from tests.integration.test_providers import PROVIDERS, QUICK, Heard, hear, opened, requests_of, user
from tests.speed import limit

KEY = "my-very-own-word-for-this"
PAGE = "<!doctype html><html><head><title>404 Not Found</title></head><body><h1>nginx</h1></body></html>"
COMPLETION = {
    "id": "c", "object": "chat.completion", "model": "m",
    "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": "Let me look.", "reasoning_content": "Hm.",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": "{\"at\":\"x\"}"}}],
    }}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 3},
}  # fmt: skip
MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "stop_reason": "tool_use", "usage":
    {"input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 2},
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "a", "name": "look", "input": {"at": "x"}},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
async def urls() -> AsyncIterator[dict[str, str]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(fake_server(name)) for name in PROVIDERS}


def body(status: int, document: Any, *, times: int = 0, kind: str = "application/json", headers: str = "") -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return f"{headers}/body {status} {times} {kind} {json.dumps(text)}\n/say At last"


async def ask(urls: dict[str, str], script: str, provider: str = "openai", limits: ModelCallLimits = QUICK) -> Heard:
    async with opened(provider, urls[provider], key=KEY, limits=limits) as model:
        return await hear(model, script)


async def tries(urls: dict[str, str], script: str, provider: str = "openai", limits: ModelCallLimits = QUICK) -> int:
    mark = uuid.uuid4().hex
    async with opened(provider, urls[provider], limits=limits) as model:
        await hear(model, [user(f"{mark}\n{script}")])
    return len(await requests_of(urls[provider], mark))


@pytest.mark.parametrize(("provider", "document"), [("openai", COMPLETION), ("anthropic", MESSAGE)])
async def test_a_whole_document_in_place_of_a_stream_is_an_answer(
    urls: dict[str, str], provider: str, document: dict[str, Any]
) -> None:
    heard = await ask(urls, body(200, document), provider)
    assert (heard.reasoning, heard.text, heard.error) == ("Hm.", "Let me look.", None)
    assert [(name, given) for name, _, given in heard.calls] == [("look", {"at": "x"})]
    assert heard.finished == Finished("tool-calls", Usage(5, 2, 0, 3))


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("document", "code", "asked"),
    [
        ({"error": {"message": "The key is wrong", "type": "authentication_error", "code": 401}}, "authentication", 1),
        ([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow down"}}], "rate_limited", 4),
        ({"detail": "Something else"}, "provider_error", 4),
        (PAGE, "bad_request", 1),
        ("upstream connect error", "provider_incomplete", 4),
    ],
)
async def test_a_success_that_holds_an_error_is_that_error(
    urls: dict[str, str], provider: str, document: Any, code: str, asked: int
) -> None:
    heard = await ask(urls, body(200, document), provider)
    assert heard.error is not None
    assert heard.error.code == code
    assert await tries(urls, body(200, document), provider) == asked


GEMINI_QUOTA = {
    "error": {
        "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota.",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "WAITs"}],
    }
}  # fmt: skip
GROQ = {"error": {"message": "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 8000",
                  "type": "tokens", "code": "rate_limit_exceeded"}}  # fmt: skip
TOOL_USE = {"error": {"message": "Failed to call a function. See 'failed_generation'.", "code": "tool_use_failed",
                      "type": "invalid_request_error", "failed_generation": "<function=look"}}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "document", "code", "sentence"),
    [
        (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "API key not valid."}}],
         "authentication", "API key"),
        (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
          "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."}}],
         "context_too_long", "too long"),
        (413, GROQ, "rate_limited", "too many requests"),
        (413, {"error": {"message": "Request Entity Too Large"}}, "context_too_long", "too long"),
        (498, {"error": {"message": "Flex tier capacity exceeded"}}, "overloaded", "overloaded"),
        (400, TOOL_USE, "provider_error", "Something went wrong"),
        (404, PAGE, "bad_request", "no model at the address"),
        (404, {"detail": "Not Found"}, "bad_request", "no model at the address"),
        (404, "404 page not found", "bad_request", "no model at the address"),
        (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}},
         "bad_request", "does not know this model"),
        (502, PAGE, "provider_error", "Something went wrong"),
        (400, {"error": "litellm.ContextWindowExceededError: too much"}, "context_too_long", "too long"),
    ],
)  # fmt: skip
async def test_an_error_is_put_into_the_right_words(
    urls: dict[str, str], status: int, document: Any, code: str, sentence: str
) -> None:
    heard = await ask(urls, body(status, document), limits=replace(QUICK, attempts=1))
    assert heard.error is not None
    assert heard.error.code == code
    assert sentence in str(heard.error)


@pytest.mark.parametrize(
    "script",
    [
        body(413, GROQ, times=1),
        body(400, TOOL_USE, times=1),
        body(498, {"error": {"message": "capacity"}}, times=1),
        "/hangup 1\n/say At last",
    ],
)
async def test_what_may_go_well_the_next_time_is_tried_again(urls: dict[str, str], script: str) -> None:
    heard = await ask(urls, script)
    assert (heard.text, heard.error) == ("At last", None)


@pytest.mark.parametrize(
    "script",
    [
        body(429, [json.loads(json.dumps(GEMINI_QUOTA).replace("WAIT", "20.5"))]),
        body(429, {"error": {"message": "limited"}}, headers="/header llm_provider-retry-after 20\n"),
        body(429, {"error": {"message": "Rate limit reached. Please try again in 20.1s. Visit us"}}),
        body(429, {"error": {"message": "Rate limit reached. Please try again in 6m0s."}}),
    ],
)
async def test_the_wait_that_a_provider_asks_for_is_known_wherever_it_stands(urls: dict[str, str], script: str) -> None:
    assert await tries(urls, script, limits=replace(QUICK, longest_wait=19)) == 1
    shorter = script.replace("20.5s", "0s").replace("after 20", "after 0").replace("20.1s", "20ms")
    shorter = shorter.replace("6m0s", "0s")
    assert await tries(urls, shorter, limits=replace(QUICK, longest_wait=19)) == QUICK.attempts


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_hang_up_is_no_timeout_and_is_tried_again(urls: dict[str, str], provider: str) -> None:
    heard = await ask(urls, "/hangup\n/say never", provider)
    assert heard.error is not None
    assert heard.error.code == "connection"
    assert await tries(urls, "/hangup\n/say never", provider) == QUICK.attempts


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_queue_at_the_server_is_waited_for_longer_than_a_pause(urls: dict[str, str], provider: str) -> None:
    """The first byte has its own limit; a silence after it has the shorter one."""
    limits = ModelCallLimits(connect=limit(5), first_byte=limit(8), silence=limit(0.3))
    heard = await ask(urls, "/slow 1\n/say In time", provider, limits)
    assert (heard.text, heard.error) == ("In time", None)
    heard = await ask(urls, "/say In time\n/hang", provider, limits)
    assert heard.error is not None
    assert heard.error.code == "timeout"


def test_the_first_byte_of_a_server_of_ones_own_is_waited_for_longer() -> None:
    assert ModelCallLimits.of(None, "http://127.0.0.1:11434/v1").first_byte == OWN_SERVER_FIRST_BYTE == 600
    assert ModelCallLimits.of(None, "https://api.openai.com/v1").first_byte == 120
    assert ModelCallLimits.of(7, "http://127.0.0.1:11434/v1").first_byte == 7


async def test_the_log_has_what_the_provider_says_and_no_secret(
    urls: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    said = (
        f"Unsupported value: 'tools' with {KEY}, sk-abc123456, Bearer abcd.efgh, https://u:p@x.y/z?key=1 " + "x" * 400
    )
    with caplog.at_level(logging.WARNING):
        heard = await ask(urls, body(400, {"error": {"message": said, "type": "invalid_request_error"}}))
    assert heard.error is not None
    assert "Unsupported" not in str(heard.error)
    record = next(record for record in caplog.records if "bad_request" in record.getMessage())
    logged = vars(record)["error"]
    assert logged.startswith("Unsupported value: 'tools' with [REDACTED], [REDACTED]")
    assert len(logged) <= 300
    for secret in (KEY, "abc123", "efgh", "u:p", "key=1"):
        assert secret not in logged


async def test_the_log_has_the_title_of_a_web_page(urls: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await ask(urls, body(404, PAGE, kind="text/html"))
    assert "404 Not Found" in vars(caplog.records[-1])["error"]
    assert "<" not in vars(caplog.records[-1])["error"]


async def test_what_a_message_cost_so_far_is_told_before_its_end(urls: dict[str, str]) -> None:
    heard = await ask(urls, "/say Half\n/drop", "anthropic")
    assert heard.usages == [Usage(11, 1, 0, 4)]

"""A fake OpenAI-compatible server. `script` describes its commands. `POST /v1/chat/completions`, streaming only.

It is strict: a request that OpenAI would refuse is a 400 here too. The API key `wrong` is a 401. Models: `caches`
counts cached tokens (`prefixes.py`), `old-limits` takes no `max_tokens`, `no-effort` takes tools only with
`reasoning_effort: none`, `no-options` takes no `stream_options`. Quirks: `reasoning` and `details` (the member with the
reasoning), `comments` (those of OpenRouter), `no-ids`, `no-index`, `one-index`, `late-name`, `interleave`, `no-usage`,
`no-done`, `usage-with-choice`, `crlf`, `late-pages` (the cited pages come at the end).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.fakes.file_blocks import openai_fault, text_of
from tests.fakes.prefixes import PrefixCache
from tests.fakes.script import Fake, pieces
from tests.fakes.serving import Exchange, main

FAKE = Fake()
CACHE = PrefixCache()
ERRORS: dict[str, Any] = {
    "overloaded": {"code": 503, "message": "The engine is currently overloaded"},
    "context": {"code": "context_length_exceeded", "message": "This model's maximum context length is 8192 tokens."},
    "server_error": {"type": "server_error", "message": "The server had an error with sk-secret-key at https://x.y/z"},
}
REFUSALS: dict[int, dict[str, Any]] = {
    400: {"type": "invalid_request_error", "code": None, "message": "Something is wrong with messages[0]"},
    401: {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key: sk-secret-key"},
    402: {"code": 402, "message": "Insufficient credits"},
    404: {"type": "invalid_request_error", "code": "model_not_found", "message": "The model does not exist"},
    413: {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "too long"},
    422: {"type": "invalid_request_error", "code": "content_filter", "message": "The prompt was filtered"},
    429: {"type": "requests", "code": "rate_limit_exceeded", "message": "Rate limit reached for org-secret"},
}


class OpenAIWire:
    def __init__(self, body: dict[str, Any]) -> None:
        self.quirks: set[str] = set()
        self._usage_wanted = (body.get("stream_options") or {}).get("include_usage", False)
        self._model = body["model"]
        self._prompt = CACHE.openai(body) if body["model"] == "caches" else None
        self._deltas = 0
        self._thoughts = 0
        self._called = False
        self._pages: list[Any] = []

    def begin(self) -> bytes:
        return self._delta({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        self._deltas += 1
        return self._comment() + self._delta({"content": text})

    def think(self, text: str) -> bytes:
        self._thoughts += 1
        if "details" in self.quirks:
            return self._delta({"content": "", "reasoning_details": [{"type": "reasoning.text", "text": text}]})
        return self._delta(
            {("reasoning" if "reasoning" in self.quirks else "reasoning_content"): text, "content": None}
        )

    def cite(self, page: Any) -> bytes:
        annotation = {"type": "url_citation", "url_citation": page}
        if "late-pages" in self.quirks:
            self._pages.append(annotation)
            return b""
        return self._delta({"annotations": [annotation]})

    def calls(self, calls: list[tuple[str, str]]) -> Iterable[bytes]:
        self._called = True
        rows = [list(self._call(index, name, arguments)) for index, (name, arguments) in enumerate(calls)]
        if "interleave" in self.quirks:
            longest = max(map(len, rows))
            yield from (row[place] for place in range(longest) for row in rows if place < len(row))
        else:
            yield from (data for row in rows for data in row)

    def _call(self, index: int, name: str, arguments: str) -> Iterable[bytes]:
        shown: dict[str, Any] = {"index": 0 if "one-index" in self.quirks else index}
        if "no-index" in self.quirks:
            shown = {}
        head = (
            dict(shown) if "no-ids" in self.quirks else {**shown, "id": self.call_id(name, index), "type": "function"}
        )
        texts = pieces(arguments)
        if "late-name" in self.quirks and texts:
            yield self._delta({"tool_calls": [{**head, "function": {"arguments": texts.pop(0)}}]})
            yield self._delta({"tool_calls": [{**shown, "function": {"name": name, "arguments": ""}}]})
        else:
            yield self._delta({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
        for text in texts:
            yield self._delta({"tool_calls": [{**shown, "function": {"arguments": text}}]})

    def call_id(self, name: str, index: int) -> str:
        return f"call_{name}_{index}"

    def error(self, kind: str) -> bytes:
        return self._data({"error": ERRORS[kind], "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]})

    def ping(self) -> bytes:
        return b": OPENROUTER PROCESSING\n\n"

    def finish(self, reason: str | None) -> Iterable[bytes]:
        reason = reason or ("tool_calls" if self._called else "stop")
        usage: dict[str, Any] = {
            "prompt_tokens": 11, "completion_tokens": self._deltas + self._thoughts, "total_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": self._thoughts},
        }  # fmt: skip
        if self._prompt is not None:
            usage |= {"prompt_tokens": self._prompt[0], "prompt_tokens_details": {"cached_tokens": self._prompt[1]}}
        with_choice = "usage-with-choice" in self.quirks
        yield self._delta({}, finish_reason=reason, **({"usage": usage} if with_choice else {}))
        if self._usage_wanted and not with_choice and "no-usage" not in self.quirks:
            yield self._data({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage})
        if "no-done" not in self.quirks:
            yield b"data: [DONE]\n\n"

    def refusal(self, status: int) -> Any:
        return {"error": REFUSALS.get(status, {"type": "server_error", "message": "https://internal.host/path failed"})}

    def _comment(self) -> bytes:
        return self.ping() if "comments" in self.quirks else b""

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        if finish_reason is not None and self._pages:
            choice["message"] = {"role": "assistant", "annotations": self._pages}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": self._model}
        return self._data({**head, "choices": [choice], **more})

    def _data(self, document: Any) -> bytes:
        end = "\r\n\r\n" if "crlf" in self.quirks else "\n\n"
        return f"data: {json.dumps(document)}{end}".encode()


def fault_in(body: dict[str, Any]) -> str | None:
    """Returns the reason for which OpenAI would refuse the messages, or None."""
    waiting: list[str] = []
    seen: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            if not isinstance(message["content"], str):
                return "the content of a message with role 'tool' must be a text"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return f"these tool_call_ids did not have response messages: {waiting}"
        for call in message.get("tool_calls", ()):
            if call["id"] in seen or not isinstance(json.loads(call["function"]["arguments"]), dict):
                return "tool call ids are used twice, or arguments are no object"
            seen.add(call["id"])
            waiting.append(call["id"])
        if message["role"] == "user" and (fault := openai_fault(message["content"], body.get("model", ""))):
            return fault
        if not (message.get("content") or message.get("tool_calls")):
            return "a message has no content"
    return f"no responses for {waiting}" if waiting else None


def refused_setting(body: dict[str, Any]) -> tuple[str, str] | None:
    """Returns a setting that the model does not take, and the message about it."""
    model = body["model"]
    if model == "old-limits" and "max_tokens" in body:
        return "max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    if model == "no-effort" and body.get("tools") and body.get("reasoning_effort") != "none":
        return "reasoning_effort", "Function tools with reasoning_effort are not supported in /v1/chat/completions."
    if model == "no-options" and "stream_options" in body:
        return "stream_options", "Unrecognized request argument supplied: stream_options"
    return None


async def handle(exchange: Exchange) -> None:
    if not await FAKE.remember(exchange):
        return
    body = exchange.request.json()
    wire = OpenAIWire(body)
    if exchange.request.headers.get("authorization") == "Bearer wrong":
        await exchange.answer(401, wire.refusal(401))
        return
    if refused := refused_setting(body):
        error = {"type": "invalid_request_error", "param": refused[0], "message": refused[1], "code": None}
        await exchange.answer(400, {"error": error})
        return
    if fault := fault_in(body):
        await exchange.answer(400, {"error": {"type": "invalid_request_error", "message": fault}})
        return
    messages = body["messages"]
    place = max(place for place, message in enumerate(messages) if message["role"] == "user")
    since = messages[place + 1 :]
    step = sum(message["role"] == "assistant" for message in since)
    results = [message["content"] for message in since if message["role"] == "tool"]
    await FAKE.play(exchange, wire, text_of(messages[place]["content"]), step, results)


if __name__ == "__main__":
    main(handle)

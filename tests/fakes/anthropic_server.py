"""A fake Anthropic server. `script` describes its commands. `POST /v1/messages`, streaming only.

It is strict: a request that Anthropic would refuse is a 400 here too. The API key `wrong` is a 401. Models:
`caches` counts cached tokens (`prefixes.py`), `no-thinking` takes no `thinking` setting, `no-thoughts` refuses
reasoning that is sent back. Quirks: `redacted` (reasoning is redacted), `whole-input` (a call's input is in its first
event).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from tests.fakes.file_blocks import anthropic_fault
from tests.fakes.prefixes import MOST_MARKS, PrefixCache, anthropic_blocks
from tests.fakes.script import Fake, pieces
from tests.fakes.serving import Exchange, main

FAKE = Fake()
CACHE = PrefixCache()
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip
ERRORS = {
    "overloaded": {"type": "overloaded_error", "message": "Overloaded"},
    "context": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"},
    "server_error": {"type": "api_error", "message": "Internal server error with sk-secret-key at https://x.y/z"},
}


def signature_of(thought: str) -> str:
    return "sig-" + hashlib.sha256(thought.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class AnthropicWire:
    def __init__(self, body: dict[str, Any]) -> None:
        self.quirks: set[str] = set()
        self._model = body["model"]
        self._prompt = CACHE.anthropic(body) if body["model"] == "caches" else None
        self._index = -1
        self._open: str | None = None
        self._thought = ""
        self._deltas = 0
        self._thoughts = 0
        self._called = False

    def begin(self) -> bytes:
        usage = {"input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 4, "output_tokens": 1}
        if self._prompt is not None:
            tokens, cached = self._prompt
            usage |= {
                "input_tokens": tokens - cached,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached,
            }
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": self._model, "content": []}
        start = {"message": {**message, "stop_reason": None, "usage": usage}}
        return self._event("message_start", start) + self.ping()

    def text(self, text: str) -> bytes:
        self._deltas += 1
        opening = self._switch("text", {"type": "text", "text": ""})
        return opening + self._delta({"type": "text_delta", "text": text})

    def think(self, text: str) -> bytes:
        self._thoughts += 1
        if "redacted" in self.quirks:
            return self._switch("redacted", {"type": "redacted_thinking", "data": "opaque=="})
        opening = self._switch("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        self._thought += text
        return opening + self._delta({"type": "thinking_delta", "thinking": text})

    def cite(self, page: Any) -> bytes:
        citation = {"type": "web_search_result_location", "cited_text": "…", "encrypted_index": "e==", **page}
        opening = self._switch("text", {"type": "text", "text": "", "citations": []})
        return opening + self._delta({"type": "citations_delta", "citation": citation})

    def calls(self, calls: list[tuple[str, str]]) -> Iterable[bytes]:
        self._called = True
        for number, (name, arguments) in enumerate(calls):
            block = {"type": "tool_use", "id": f"toolu_{name}_{number}", "name": name, "input": {}}
            whole = "whole-input" in self.quirks
            if whole:
                block["input"] = json.loads(arguments)
            yield self._switch(f"tool {number}", block)
            for piece in pieces("" if whole else arguments):
                yield self._delta({"type": "input_json_delta", "partial_json": piece})

    def error(self, kind: str) -> bytes:
        return self._event("error", {"error": ERRORS[kind]})

    def ping(self) -> bytes:
        return self._event("ping", {})

    def finish(self, reason: str | None) -> Iterable[bytes]:
        yield self._switch(None, None)
        output = {"output_tokens": self._deltas + self._thoughts}
        usage = {**output, "output_tokens_details": {"thinking_tokens": self._thoughts}}
        stop, _, explanation = (reason or ("tool_use" if self._called else "end_turn")).partition(" ")
        delta: dict[str, Any] = {"stop_reason": stop, "stop_sequence": None}
        if stop == "refusal":
            delta["stop_details"] = {"type": "refusal", "category": None, "explanation": explanation or None}
        yield self._event("message_delta", {"delta": delta, "usage": usage})
        yield self._event("message_stop", {})

    def refusal(self, status: int) -> Any:
        kind = TYPES.get(status, "api_error")
        error = {"type": kind, "message": "prompt is too long" if status == 413 else "sk-secret-key https://x.y/z"}
        return {"type": "error", "error": error, "request_id": "req_1"}

    def _switch(self, kind: str | None, block: dict[str, Any] | None) -> bytes:
        """Closes the open block and opens another, unless it is the same."""
        if kind == self._open:
            return b""
        data = b""
        if self._open == "thinking":
            data += self._delta({"type": "signature_delta", "signature": signature_of(self._thought)})
            self._thought = ""
        if self._open is not None:
            data += self._event("content_block_stop", {"index": self._index})
        self._open = kind
        if block is not None:
            self._index += 1
            data += self._event("content_block_start", {"index": self._index, "content_block": block})
        return data

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event("content_block_delta", {"index": self._index, "delta": delta})

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


def fault_in(body: dict[str, Any], *, signed: bool = True) -> str | None:
    """Returns the reason for which Anthropic would refuse the messages, or None. Other servers do not sign thinking."""
    waiting: list[str] = []
    seen: set[str] = set()
    for place, message in enumerate(body["messages"]):
        blocks = message["content"]
        if message["role"] != ("user" if place % 2 == 0 else "assistant"):
            return "roles must alternate, beginning with user"
        if not blocks or any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            return "text content blocks must contain non-whitespace text"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(results) != sorted(waiting):
            return "`tool_use` ids were found without `tool_result` blocks immediately after, or the reverse"
        if results and [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
            return "tool_result blocks must come first"
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len(set(waiting)) < len(waiting) or seen & set(waiting):
            return "`tool_use` ids must be unique"
        seen.update(waiting)
        for block in blocks:
            if fault := anthropic_fault(block):
                return fault
            if signed and block["type"] == "thinking" and block["signature"] != signature_of(block["thinking"]):
                return "Invalid `signature` in `thinking` block"
    return "prefill is not supported" if body["messages"][-1]["role"] == "assistant" else None


def refused_setting(body: dict[str, Any]) -> str | None:
    if sum("cache_control" in block for block in anthropic_blocks(body)) > MOST_MARKS:
        return "A maximum of 4 blocks with cache_control may be provided."
    blocks = [block for message in body["messages"] for block in message["content"]]
    if body["model"] == "no-thinking" and "thinking" in body:
        return "thinking.type: adaptive thinking is not supported on this model"
    if body["model"] == "no-thoughts" and any("thinking" in block["type"] for block in blocks):
        return "`thinking` blocks belong to another model"
    return None


def _is_said(block: dict[str, Any]) -> bool:
    """Returns True for a text of the user. Claude Code adds reminders to messages."""
    return block["type"] == "text" and not block["text"].startswith("<system-reminder>")


async def handle(exchange: Exchange) -> None:
    if not await FAKE.remember(exchange):
        return
    body = exchange.request.json()
    wire = AnthropicWire(body)
    sent = exchange.request.headers
    if "anthropic-beta" in sent:  # Claude Code puts reminders into messages of their own, for newer models
        body = {**body, "messages": [message for message in body["messages"] if message["role"] != "system"]}
    if "wrong" in (sent.get("x-api-key"), sent.get("authorization", "").removeprefix("Bearer ")):
        await exchange.answer(401, wire.refusal(401))
        return
    if fault := refused_setting(body) or fault_in(body):
        await exchange.answer(400, {"type": "error", "error": {"type": "invalid_request_error", "message": fault}})
        return
    messages = body["messages"]
    texts = [[block["text"] for block in message["content"] if _is_said(block)] for message in messages]
    place = max(place for place, message in enumerate(messages) if message["role"] == "user" and texts[place])
    since = messages[place + 1 :]
    step = sum(message["role"] == "assistant" for message in since)
    results = [block["content"] for message in since for block in message["content"] if block["type"] == "tool_result"]
    await FAKE.play(exchange, wire, texts[place][-1], step, results)


if __name__ == "__main__":
    main(handle)

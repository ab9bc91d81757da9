"""A fake of OpenAI's Responses API. `script` describes its commands. `POST /v1/responses`, streaming only.

Its requests and events have the shapes of the types of `openai` 3.54.0 (`test_responses_fake.py` compares them). It
refuses what OpenAI refuses, in the words that users report (read 2026-11-30):

- "Item 'rs_…' of type 'reasoning' was provided without its required following item" (vercel/ai 7099)
- "The encrypted content … could not be verified" (openai/codex 8145)
- "Item with id 'rs_…' not found. Items are not persisted when `store` is set to false" (vercel/ai 7543)
- "Duplicate item found with id" (github/app 540)
- "Your organization must be verified to generate reasoning summaries" (continuedev/continue 9607)
- "Encrypted content is not supported with this model" (microsoft/agent-framework 7483)
- "No tool output found for function call", "No tool call found for function call output", "Missing required parameter:
  'tools[0].name'" (sources of many clients)

The API key `wrong` is a 401. Models: `caches` counts cached tokens (`prefixes.py`), `plain` does not reason,
`unverified` gives no summaries, `no-key` takes no `prompt_cache_key`, `small` takes 4,000 characters, `new-key` can
read no encrypted content, and `late-key` says so inside the stream. Quirks: `no-deltas` (items come whole),
`nested-error`, `silent` (reasoning without a summary), `between` (each call has reasoning of its own), `interleave`,
`no-usage`, `phases`, `unknown` (events and items of unknown types).
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterable
from typing import Any

from tests.fakes.file_blocks import text_of
from tests.fakes.prefixes import PrefixCache
from tests.fakes.responses_refusals import FOLLOWERS, encrypted, refusal_of, refused
from tests.fakes.script import Fake, pieces
from tests.fakes.serving import Exchange, main

FAKE = Fake()
CACHE = PrefixCache()
OVERLOADED = {
    "code": "server_is_overloaded",
    "message": "Our servers are currently overloaded. Please try again later.",
}
ERRORS: dict[str, dict[str, Any]] = {
    "overloaded": OVERLOADED,
    "context": {"code": "context_length_exceeded", "message": "Your input exceeds the context window of this model."},
    "server_error": {"code": "server_error", "message": "The server had an error with sk-secret-key at https://x.y/z"},
    "policy": {"code": "invalid_prompt", "message": "Invalid prompt: your prompt was flagged by our usage policy."},
}
STATUSES: dict[int, dict[str, Any]] = {
    400: {"type": "invalid_request_error", "code": None, "param": "input", "message": "Something is wrong with input"},
    401: {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key: sk-secret-key"},
    402: {"code": 402, "message": "Insufficient credits"},
    404: {"type": "invalid_request_error", "code": "model_not_found", "message": "The model does not exist"},
    413: {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "too long"},
    429: {"type": "requests", "code": "rate_limit_exceeded", "message": "Rate limit reached for org-secret"},
}


class ResponsesWire:
    def __init__(self, body: dict[str, Any]) -> None:
        self.quirks: set[str] = set()
        self._body = body
        self._id = f"resp_{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._prompt = CACHE.responses(body) if body["model"] == "caches" else None
        self._words = self._thoughts = 0

    def begin(self) -> bytes:
        response = {"response": self._response("in_progress")}
        odd = self._event("response.sparkle.added", {"sparkle": 1}) if "unknown" in self.quirks else b""
        return self._event("response.created", response) + self._event("response.in_progress", response) + odd

    def text(self, text: str) -> bytes:
        self._words += 1
        return self._write("output_text", text)

    def think(self, text: str) -> bytes:
        self._thoughts += 1
        data = self._open_reasoning()
        assert self._open is not None
        if "silent" in self.quirks or not (self._body.get("reasoning") or {}).get("summary"):
            return data
        item = self._open
        at: dict[str, Any] = {"item_id": item["id"], "output_index": self._place, "summary_index": 0}
        if not item["summary"]:
            item["summary"].append({"type": "summary_text", "text": ""})
            data += self._shown("response.reasoning_summary_part.added", {**at, "part": dict(item["summary"][0])})
        item["summary"][0]["text"] += text
        return data + self._shown("response.reasoning_summary_text.delta", {**at, "delta": text})

    def cite(self, page: Any) -> bytes:
        annotation = {"type": "url_citation", "start_index": 0, "end_index": 1, "title": "", **page}
        data = self._open_part("output_text")
        assert self._open is not None
        part = self._open["content"][-1]
        part["annotations"].append(annotation)
        at = {**self._at_part(), "annotation_index": len(part["annotations"]) - 1, "annotation": annotation}
        return data + self._shown("response.output_text.annotation.added", at)

    def calls(self, calls: list[tuple[str, str]]) -> Iterable[bytes]:
        rows = [list(self._call(name, arguments)) for name, arguments in calls]
        if "interleave" in self.quirks:
            yield from (data for row in itertools.zip_longest(*rows, fillvalue=b"") for data in row)
        else:
            yield from (data for row in rows for data in row)

    def _call(self, name: str, arguments: str) -> Iterable[bytes]:
        if "between" in self.quirks:
            yield self._close() + self._open_reasoning()
        call_id = f"call_{uuid.uuid4().hex[:24]}"
        item = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "call_id": call_id, "name": name}
        yield self._add({**item, "arguments": "", "status": "in_progress"})
        at, self._open = {"item_id": item["id"], "output_index": self._place}, None
        for piece in pieces(arguments):
            yield self._shown("response.function_call_arguments.delta", {**at, "delta": piece})
        done = {**item, "arguments": arguments, "status": "completed"}
        self._output[at["output_index"]] = done
        yield self._shown("response.function_call_arguments.done", {**at, "arguments": arguments, "name": name})
        yield self._event("response.output_item.done", {"output_index": at["output_index"], "item": done})

    def error(self, kind: str | dict[str, Any]) -> bytes:
        if isinstance(kind, dict):
            return self._event("error", {"error": kind})
        if kind.startswith("failed-"):
            response = self._response("failed", error=ERRORS[kind.removeprefix("failed-")])
            return self._event("response.failed", {"response": response})
        error = {**ERRORS[kind], "param": None}
        return self._event("error", {"error": {"type": "x", **error}} if "nested-error" in self.quirks else error)

    def ping(self) -> bytes:
        return b": ping\n\n"

    def finish(self, reason: str | None) -> Iterable[bytes]:
        why, _, words = (reason or "completed").partition(" ")
        if why == "refusal":
            yield self._write("refusal", words)
        if "unknown" in self.quirks:
            item = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
            yield self._add(item) + self._event(
                "response.output_item.done", {"output_index": self._place, "item": item}
            )
            self._open = None
        yield self._close("completed" if why in ("completed", "refusal") else "incomplete")
        if why in ("completed", "refusal"):
            yield self._event("response.completed", {"response": self._response("completed", usage=self._usage())})
        else:
            response = self._response("incomplete", incomplete_details={"reason": why}, usage=self._usage())
            yield self._event("response.incomplete", {"response": response})

    def refusal(self, status: int) -> Any:
        return {"error": STATUSES.get(status, {"type": "server_error", "message": "https://internal.host/path failed"})}

    # --- items --------------------------------------------------------------------------------------------------------

    @property
    def _place(self) -> int:
        return len(self._output) - 1

    def _add(self, item: dict[str, Any]) -> bytes:
        """Closes the open item and adds another one."""
        data = self._close()
        if self._output and self._output[-1]["type"] == "reasoning":
            kind = item["type"]
            own = item.get("call_id") if kind == "function_call" else item["id"] if kind == "reasoning" else kind
            FOLLOWERS[self._output[-1]["id"]] = str(own)
        self._output.append(item)
        self._open = item
        return data + self._event("response.output_item.added", {"output_index": self._place, "item": item})

    def _open_reasoning(self) -> bytes:
        if self._open is not None and self._open["type"] == "reasoning":
            return b""
        id = f"rs_{uuid.uuid4().hex}"
        return self._add({"id": id, "type": "reasoning", "summary": [], "encrypted_content": "gAAAA"})

    def _open_part(self, kind: str) -> bytes:
        """Opens a part of a message. A refusal is a part of its own."""
        data = b""
        if self._open is None or self._open["type"] != "message":
            phase = {"phase": "commentary" if "/tool" in str(self._body["input"]) else "final_answer"}
            message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "content": []}
            phase = phase if "phases" in self.quirks else {}
            data = self._add({**message, "status": "in_progress", **phase})
        assert self._open is not None
        parts = self._open["content"]
        if not parts or parts[-1]["type"] != kind:
            data += self._close_part()
            shape = {"refusal": ""} if kind == "refusal" else {"text": "", "annotations": [], "logprobs": []}
            parts.append({"type": kind, **shape})
            data += self._shown("response.content_part.added", {**self._at_part(), "part": dict(parts[-1])})
        return data

    def _write(self, kind: str, text: str) -> bytes:
        data = self._open_part(kind)
        assert self._open is not None
        part = self._open["content"][-1]
        if kind == "refusal":
            part["refusal"] += text
            return data + self._shown("response.refusal.delta", {**self._at_part(), "delta": text})
        part["text"] += text
        return data + self._shown("response.output_text.delta", {**self._at_part(), "delta": text, "logprobs": []})

    def _at_part(self) -> dict[str, Any]:
        assert self._open is not None
        content = len(self._open["content"]) - 1
        return {"item_id": self._open["id"], "output_index": self._place, "content_index": content}

    def _close_part(self) -> bytes:
        item = self._open
        if item is None or item["type"] != "message" or not item["content"]:
            return b""
        at, part = self._at_part(), item["content"][-1]
        if part["type"] == "refusal":
            done = self._shown("response.refusal.done", {**at, "refusal": part["refusal"]})
        else:
            done = self._shown("response.output_text.done", {**at, "text": part["text"], "logprobs": []})
        return done + self._shown("response.content_part.done", {**at, "part": part})

    def _close(self, status: str = "completed") -> bytes:
        item, data = self._open, self._close_part()
        if item is None:
            return b""
        if item["type"] == "reasoning":
            at = {"item_id": item["id"], "output_index": self._place, "summary_index": 0}
            for part in item["summary"]:
                data += self._shown("response.reasoning_summary_text.done", {**at, "text": part["text"]})
                data += self._shown("response.reasoning_summary_part.done", {**at, "part": part})
            wanted = "reasoning.encrypted_content" in (self._body.get("include") or ())
            item["encrypted_content"] = encrypted(item["id"]) if wanted else None
        else:
            item["status"] = status
        self._open = None
        return data + self._event("response.output_item.done", {"output_index": self._place, "item": item})

    # --- events -------------------------------------------------------------------------------------------------------

    def _usage(self) -> dict[str, Any] | None:
        if "no-usage" in self.quirks:
            return None
        prompt, cached = self._prompt or (11, 4)
        output = self._words + self._thoughts
        return {
            "input_tokens": prompt, "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": self._thoughts},
            "total_tokens": prompt + output,
        }  # fmt: skip

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        body = self._body
        return {
            "id": self._id, "object": "response", "created_at": 1, "status": status, "model": body["model"],
            "error": None, "incomplete_details": None, "instructions": body.get("instructions"), "metadata": {},
            "output": self._output if status != "in_progress" else [], "tool_choice": "auto",
            "parallel_tool_calls": body.get("parallel_tool_calls", True), "temperature": 1.0, "top_p": 1.0,
            "tools": body.get("tools", []), "usage": None, "store": body.get("store", True),
            **more,
        }  # fmt: skip

    def _shown(self, name: str, fields: dict[str, Any]) -> bytes:
        """Returns an event of a part, which some servers leave out."""
        return b"" if "no-deltas" in self.quirks else self._event(name, fields)

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        document = {"type": name, "sequence_number": next(self._numbers), **fields}
        return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()


# --- answering --------------------------------------------------------------------------------------------------------


async def respond(exchange: Exchange, fake: Fake) -> None:
    """Answers one request to `POST …/responses`."""
    body = exchange.request.json()
    wire = ResponsesWire(body)
    if exchange.request.headers.get("authorization") == "Bearer wrong":
        await exchange.answer(401, wire.refusal(401))
        return
    if refusal := refusal_of(body):
        if body["model"] == "late-key":
            await exchange.begin_stream()
            await exchange.send(wire.begin() + wire.error(refusal[1]["error"]))
            await exchange.end_stream()
        else:
            await exchange.answer(*refusal)
        return
    items = body["input"]
    place = max(place for place, item in enumerate(items) if item.get("role") == "user")
    if re.search(r"^/never", text_of(items[place]["content"]), re.MULTILINE) and any(
        "call_id" in item for item in items
    ):
        await exchange.answer(*refused("Something is wrong with this conversation"))
        return
    outputs = [item.get("type") == "function_call_output" for item in items[place:]]
    step = sum(is_output and not before for before, is_output in itertools.pairwise(outputs))
    results = [item["output"] for item in items[place + 1 :] if item.get("type") == "function_call_output"]
    await fake.play(exchange, wire, text_of(items[place]["content"]), step, results)


async def handle(exchange: Exchange) -> None:
    if await FAKE.remember(exchange):
        await respond(exchange, FAKE)


if __name__ == "__main__":
    main(handle)

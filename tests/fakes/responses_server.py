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

import base64
import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Iterable
from typing import Any

from tests.fakes.prefixes import PrefixCache
from tests.fakes.script import Fake, pieces
from tests.fakes.serving import Exchange, main

FAKE = Fake()
CACHE = PrefixCache()
Refusal = tuple[int, dict[str, Any]]
PARAMETERS = frozenset(
    {
        "access_programs", "background", "background_options", "context_management", "conversation", "image",
        "include", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model", "moderation",
        "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream",
        "stream_options", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip
TOOL = frozenset(
    {
        "allowed_callers",
        "async",
        "defer_loading",
        "description",
        "name",
        "output_schema",
        "parameters",
        "strict",
        "type",
    }
)
ITEMS = {
    "message": frozenset({"content", "phase", "role", "type"}),
    "reasoning": frozenset({"content", "encrypted_content", "id", "status", "summary", "type"}),
    "function_call": frozenset(
        {"arguments", "async", "call_id", "caller", "id", "name", "namespace", "status", "type"}
    ),
    "function_call_output": frozenset({"call_id", "caller", "id", "name", "namespace", "output", "status", "type"}),
}
REQUIRED = {
    "message": ("role", "content"),
    "reasoning": ("id", "summary"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}
REASONING = frozenset({"context", "effort", "generate_summary", "mode", "summary"})
MOVED = {"messages": "input", "max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"}
MAX_CALL_ID = 64  # characters
FOLLOWERS: dict[str, str] = {}
"""What came after an item of reasoning: another one's id, a call's id, or `message`."""
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


def encrypted(id: str) -> str:
    return "gAAAAAB" + base64.urlsafe_b64encode(hashlib.sha256(id.encode()).digest() * 2).decode()


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


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(message: str, param: str | None = "input", code: str | None = None, status: int = 400) -> Refusal:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return status, {"error": error}


def refusal_of(body: dict[str, Any]) -> Refusal | None:
    """Returns the status and the body with which OpenAI would refuse the request, or None."""
    return _refused_parameter(body) or _refused_tool(body) or _refused_item(body) or _refused_pair(body)


def _refused_parameter(body: dict[str, Any]) -> Refusal | None:
    for name in body.keys() - PARAMETERS:
        if name in MOVED:
            text = (
                f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to '{MOVED[name]}'."
            )
            return refused(text, name, "unsupported_parameter")
        return refused(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    model, reasoning = body["model"], body.get("reasoning") or {}
    if unknown := reasoning.keys() - REASONING:
        return refused(f"Unknown parameter: 'reasoning.{min(unknown)}'.", "reasoning", "unknown_parameter")
    if body.get("max_output_tokens", 16) < 16:
        text = "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead."
        return refused(text, "max_output_tokens", "integer_below_min_value")
    if model == "plain" and body.get("include"):
        return refused("Encrypted content is not supported with this model.", "include")
    if model == "plain" and reasoning:
        name = f"reasoning.{min(reasoning)}"
        return refused(
            f"Unsupported parameter: '{name}' is not supported with this model.", name, "unsupported_parameter"
        )
    if model == "unverified" and "summary" in reasoning:
        text = (
            "Your organization must be verified to generate reasoning summaries. Please go to: https://x.y/ and click."
        )
        return refused(text, "reasoning.summary", "unsupported_value")
    if model == "no-key" and "prompt_cache_key" in body:
        return refused("Unknown parameter: 'prompt_cache_key'.", "prompt_cache_key", "unknown_parameter")
    if reasoning.get("effort") == "extreme":
        text = f"Unsupported value: 'extreme' is not supported with the '{model}' model. Supported values are: 'low'."
        return refused(text, "reasoning.effort", "unsupported_value")
    if model == "small" and len(json.dumps(body["input"])) > 4_000:
        text = "Your input exceeds the context window of this model. Please adjust your input and try again."
        return refused(text, "input", "context_length_exceeded")
    return None


def _refused_tool(body: dict[str, Any]) -> Refusal | None:
    for place, tool in enumerate(body.get("tools", ())):
        where = f"tools[{place}]"
        if tool.get("type") == "function" and "name" not in tool:
            return refused(
                f"Missing required parameter: '{where}.name'.", f"{where}.name", "missing_required_parameter"
            )
        if unknown := tool.keys() - TOOL:
            return refused(f"Unknown parameter: '{where}.{min(unknown)}'.", where, "unknown_parameter")
        if tool.get("strict", True) and tool["parameters"].get("additionalProperties") is not False:
            text = f"Invalid schema for function '{tool['name']}': 'additionalProperties' is required to be false."
            return refused(text, f"{where}.parameters", "invalid_function_parameters")
    return None


def _refused_item(body: dict[str, Any]) -> Refusal | None:
    seen: set[str] = set()
    for place, item in enumerate(body["input"]):
        kind, where = item.get("type", "message"), f"input[{place}]"
        if kind not in ITEMS:
            return refused(f"Invalid value: '{kind}'.", where, "invalid_value")
        if missing := [name for name in REQUIRED[kind] if name not in item]:
            return refused(f"Missing required parameter: '{where}.{missing[0]}'.", where, "missing_required_parameter")
        if unknown := item.keys() - ITEMS[kind]:
            return refused(f"Unknown parameter: '{where}.{min(unknown)}'.", where, "unknown_parameter")
        prefix = {"function_call": "fc", "reasoning": "rs"}.get(kind, "")
        if (id := item.get("id")) is not None:
            if not id.startswith(prefix):
                text = f"Invalid '{where}.id': '{id}'. Expected an ID that begins with '{prefix}'."
                return refused(text, f"{where}.id", "invalid_value")
            if id in seen:
                return refused(
                    f"Duplicate item found with id {id}. Remove duplicate items from your input and try again."
                )
            seen.add(id)
        if not 0 < len(item.get("call_id", "-")) <= MAX_CALL_ID:
            text = f"Invalid '{where}.call_id': string too long. Expected a string with maximum length 64."
            return refused(text, f"{where}.call_id", "string_above_max_length")
        if kind == "message" and not item["content"]:
            return refused(f"Invalid '{where}.content': empty.", where)
        if kind == "function_call" and not isinstance(json.loads(item["arguments"]), dict):
            return refused(f"Invalid '{where}.arguments': not an object.", where)
    return None


def _refused_pair(body: dict[str, Any]) -> Refusal | None:
    items, waiting = body["input"], dict[str, bool]()
    for place, item in enumerate(items):
        match item.get("type"):
            case "reasoning":
                if refusal := _refused_reasoning(item, items[place + 1 : place + 2], body["model"]):
                    return refusal
            case "function_call":
                if item["call_id"] in waiting:
                    return refused(f"Duplicate item found with id {item['call_id']}.")
                waiting[item["call_id"]] = True
            case "function_call_output":
                if not waiting.get(item["call_id"]):
                    return refused(f"No tool call found for function call output with call_id {item['call_id']}.")
                waiting[item["call_id"]] = False
    if left := [call_id for call_id, waits in waiting.items() if waits]:
        return refused(f"No tool output found for function call {left[0]}.")
    return None


def _refused_reasoning(item: dict[str, Any], then: list[dict[str, Any]], model: str) -> Refusal | None:
    id, opaque = item["id"], item.get("encrypted_content")
    if not opaque:
        text = f"Item with id '{id}' not found. Items are not persisted when `store` is set to false."
        return refused(f"{text} Try again with `store` set to true, or remove this item from your input.", status=404)
    if opaque != encrypted(id) or model in ("new-key", "late-key"):
        text = f"The encrypted content {opaque[:4]}...{opaque[-4:]} could not be verified."
        return refused(text, None, "invalid_encrypted_content")
    found = then[0] if then else {}
    own = found.get("call_id") or found.get("id") or ("message" if found.get("role") == "assistant" else "")
    if own != FOLLOWERS.get(id):
        return refused(f"Item '{id}' of type 'reasoning' was provided without its required following item.")
    return None


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
    if re.search(r"^/never", items[place]["content"], re.MULTILINE) and any("call_id" in item for item in items):
        await exchange.answer(*refused("Something is wrong with this conversation"))
        return
    outputs = [item.get("type") == "function_call_output" for item in items[place:]]
    step = sum(is_output and not before for before, is_output in itertools.pairwise(outputs))
    results = [item["output"] for item in items[place + 1 :] if item.get("type") == "function_call_output"]
    await fake.play(exchange, wire, items[place]["content"], step, results)


async def handle(exchange: Exchange) -> None:
    if await FAKE.remember(exchange):
        await respond(exchange, FAKE)


if __name__ == "__main__":
    main(handle)

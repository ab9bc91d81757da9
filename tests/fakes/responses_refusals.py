"""The requests that the fake of OpenAI's Responses API refuses. `responses_server.py` names the sources."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from tests.fakes.file_blocks import responses_fault

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


def encrypted(id: str) -> str:
    return "gAAAAAB" + base64.urlsafe_b64encode(hashlib.sha256(id.encode()).digest() * 2).decode()


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
        given = item.get("output") if kind == "function_call_output" else item.get("content")
        by_user = kind == "function_call_output" or (kind == "message" and item["role"] == "user")
        if by_user and (fault := responses_fault(given)):
            return refused(f"Invalid '{where}.content': {fault}", f"{where}.content")
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

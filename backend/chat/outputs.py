"""Tool calls and their outputs as readers and models see them: safe for the clients' JSON, and of a bounded length."""

from __future__ import annotations

import orjson

from backend.chat.chunks import (
    MAX_OUTPUT_CHARS,
    Chunk,
    ToolInputAvailable,
    ToolInputError,
    ToolOutputAvailable,
    ToolOutputError,
)
from backend.chat.models import Json, ToolCallPart, ToolResultPart

UNREADABLE_INPUT = "The input of this call is not valid JSON."
MAX_DEPTH = 32
"""Of what others bring us: JSON of a few hundred levels can be stored, and then not be sent to anybody."""

_CUT_NOTE = "[cut: the output has {} characters; the first {} are shown]"
_REFUSED_KEYS = frozenset({"__proto__", "constructor", "prototype"})


def safe_json(value: Json) -> Json:
    """The value without the keys that make AI SDK clients refuse a whole stream (`secure-json-parse`)."""
    if isinstance(value, dict):
        return {key: safe_json(member) for key, member in value.items() if key not in _REFUSED_KEYS}
    if isinstance(value, list):
        return [safe_json(member) for member in value]
    return value


def is_too_deep(value: Json) -> bool:
    """Whether it is nested deeper than MAX_DEPTH. Level by level, so that no nesting can exhaust the stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        boxes = [box.values() if isinstance(box, dict) else box for box in level if isinstance(box, dict | list)]
        level = [item for box in boxes for item in box]
    return any(isinstance(item, dict | list) for item in level)


def shown_output(output: Json) -> Json:
    """The output itself, or, when its JSON is over MAX_OUTPUT_CHARS, its beginning with a note."""
    text = output if isinstance(output, str) else orjson.dumps(output).decode()
    if len(text) <= MAX_OUTPUT_CHARS:
        return output
    note = _CUT_NOTE.format(len(text), MAX_OUTPUT_CHARS)
    if isinstance(output, dict):
        kept = {key: output[key] for key in ("type", "message", "session_id") if key in output}
        if len(orjson.dumps(kept)) <= MAX_OUTPUT_CHARS:
            return {**kept, "cut": note, "beginning": text[:MAX_OUTPUT_CHARS]}
    return text[:MAX_OUTPUT_CHARS] + "\n" + note


def call_chunk(call: ToolCallPart) -> Chunk:
    """A call whose input is complete. An unreadable one is over with this chunk: no output follows it."""
    if call.readable:
        return ToolInputAvailable(call.tool_call_id, call.tool_name, call.input)
    return ToolInputError(call.tool_call_id, call.tool_name, call.input, UNREADABLE_INPUT)


def output_chunk(result: ToolResultPart) -> Chunk:
    """How a result is shown: an output, or the error of a call that never came to one."""
    if result.is_error:
        return ToolOutputError(result.tool_call_id, error_text(result))
    return ToolOutputAvailable(result.tool_call_id, shown_output(result.output))


def error_text(result: ToolResultPart) -> str:
    """Why a call was cut short."""
    output = result.output
    return str(output.get("message") or "interrupted") if isinstance(output, dict) else "interrupted"

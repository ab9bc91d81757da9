"""Tool calls and their outputs for readers and models: without JSON keys that clients refuse, and limited in length."""

from __future__ import annotations

from urllib.parse import quote

import orjson

from backend.chat.models import Excerpt, Json, ToolCallPart, ToolResultPart
from backend.chat.protocol.chunks import (
    MAX_OUTPUT_CHARS,
    Chunk,
    ToolInputAvailable,
    ToolInputError,
    ToolOutputAvailable,
    ToolOutputError,
)
from backend.ids import TaskId

UNREADABLE_INPUT = "The input of this call is not valid JSON."

MEMBERS = ("type", "message", "session_id")
"""Members that an object keeps when it is cut."""
_CUT_NOTE = "[cut: the output has {} characters; the first {} are shown]"
_CUT_NOTE_OF_HISTORY = "[cut: the output has {} characters; the first {} are shown; GET {} returns all of it]"
REFUSED_KEYS = frozenset({"__proto__", "constructor", "prototype"})
"""Names of members for which AI SDK clients refuse a whole stream."""


def safe_json(value: Json) -> Json:
    """Returns the value without the keys that make AI SDK clients refuse a whole stream (`secure-json-parse`)."""
    if isinstance(value, dict):
        return {key: safe_json(member) for key, member in value.items() if key not in REFUSED_KEYS}
    if isinstance(value, list):
        return [safe_json(member) for member in value]
    return value


def excerpt_of(output: Json, most: int) -> Excerpt | None:
    """Returns the beginning of an output whose JSON (or text) has more than `most` characters, otherwise None."""
    text = output if isinstance(output, str) else orjson.dumps(output).decode()
    if len(text) <= most:
        return None
    members = {key: output[key] for key in MEMBERS if key in output} if isinstance(output, dict) else None
    return Excerpt(text[:most], len(text), members)


def shown_output(output: Json) -> Json:
    """Returns the output, or its beginning with a note if its JSON has more than MAX_OUTPUT_CHARS characters."""
    excerpt = excerpt_of(output, MAX_OUTPUT_CHARS)
    if excerpt is None:
        return output
    note = _CUT_NOTE.format(excerpt.characters, MAX_OUTPUT_CHARS)
    members = _kept(excerpt, MAX_OUTPUT_CHARS)
    return f"{excerpt.text}\n{note}" if members is None else {**members, "cut": note, "beginning": excerpt.text}


def history_output(result: ToolResultPart, task_id: TaskId, most: int) -> Json:
    """Returns the output as a page of history shows it.

    If it has more than `most` characters, that is its beginning, cut as in the stream, with the address of the whole.
    """
    excerpt = result.excerpt or excerpt_of(result.output, most)
    if excerpt is None:
        return result.output
    whole = f"/api/chat/tasks/{task_id}/results/{quote(result.tool_call_id, safe='')}"
    text = excerpt.text[:most]
    note = _CUT_NOTE_OF_HISTORY.format(excerpt.characters, len(text), whole)
    members = _kept(excerpt, most)
    if members is None:
        return f"{text}\n{note}"
    return {**members, "cut": note, "characters": excerpt.characters, "whole": whole, "beginning": text}


def _kept(excerpt: Excerpt, most: int) -> dict[str, Json] | None:
    """Returns the members that a cut object keeps. Returns None if it is shown as a text, because they are too long."""
    members = excerpt.members
    return None if members is None or len(orjson.dumps(members)) > most else members


def call_chunk(call: ToolCallPart) -> Chunk:
    """Returns the chunk of a call whose input is complete. It is the last chunk of a call whose input is not JSON."""
    if call.readable:
        return ToolInputAvailable(call.tool_call_id, call.tool_name, call.input)
    return ToolInputError(call.tool_call_id, call.tool_name, call.input, UNREADABLE_INPUT)


def output_chunk(result: ToolResultPart) -> Chunk:
    """Returns the chunk of a result: an output, or the error of a call that was cut short."""
    if result.is_error:
        return ToolOutputError(result.tool_call_id, error_text(result))
    return ToolOutputAvailable(result.tool_call_id, shown_output(result.output))


def error_text(result: ToolResultPart) -> str:
    """Returns the reason for which a call was cut short."""
    output = result.output
    return str(output.get("message") or "interrupted") if isinstance(output, dict) else "interrupted"

"""The input of a tool call, out of the JSON text that the model streamed."""

from __future__ import annotations

from backend.chat.models import Json
from executor.llm.clean_text import clean
from executor.llm.sse import read_json

MAX_DEPTH = 24
"""Clients send what they got back to us; with the message around it, it must stay below what other readers take."""
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1


def parse_arguments(json_text: str) -> Json:
    """An object; or the text itself, cleaned, when it is no JSON object (`ToolCallPart.input`). Empty means `{}`.

    What comes back can be stored and sent: no NUL and no lone surrogate in it, nesting bounded, integers of 64 bits.
    """
    if not json_text.strip():
        return {}
    try:
        value = read_json(json_text)
        if isinstance(value, dict):
            return clean_value(value)
    except ValueError:
        pass
    return clean(json_text)


def clean_value(value: Json, depth: int = MAX_DEPTH) -> Json:
    """The JSON value with its texts and keys cleaned, and longer integers as floats or text.

    Raises ValueError when it is nested deeper than `depth`.
    """
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_value(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean_value(item, depth - 1) for key, item in value.items()}
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        return _rounded(value)
    return value


def _rounded(number: int) -> float | str:
    try:
        return float(number)
    except OverflowError:
        return str(number)

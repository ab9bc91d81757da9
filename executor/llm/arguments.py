"""The input of a tool call, parsed from the JSON text that the model streamed."""

from __future__ import annotations

from backend.chat.models import Json
from executor.llm.clean_text import clean
from executor.llm.sse import read_json

MAX_DEPTH = 24
"""Levels of nesting. Clients send inputs back inside a message, and a request may have 32 levels in all."""
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # the range of integers that orjson accepts


def parse_arguments(json_text: str) -> Json:
    """Returns the JSON object, `{}` for blank text, or the cleaned text itself if it is not a JSON object.

    The result can be stored and sent: no NUL, no lone surrogate, at most MAX_DEPTH levels, integers of 64 bits.
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
    """Returns the JSON value with cleaned strings and keys. Integers over 64 bits become floats, or text if too large.

    Raises ValueError if the value is nested deeper than `depth` levels.
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

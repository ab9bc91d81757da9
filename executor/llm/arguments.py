"""The input of a tool call, out of the JSON text that the model streamed."""

from __future__ import annotations

from backend.chat.models import Json
from executor.llm.clean_text import clean
from executor.llm.sse import read_json

MAX_DEPTH = 64


def parse_arguments(json_text: str) -> Json:
    """An object; or the text itself, cleaned, when it is no JSON object (`ToolCallPart.input`). Empty means `{}`.

    What comes back can be stored: no NUL and no lone surrogate in it, nesting bounded.
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
    """The JSON value with its texts and keys cleaned. Raises ValueError when it is nested deeper than `depth`."""
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_value(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean_value(item, depth - 1) for key, item in value.items()}
    return value

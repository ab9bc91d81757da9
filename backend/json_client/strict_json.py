"""A JSON reader that is as strict as the webhook: it accepts only what every store can hold."""

from __future__ import annotations

import orjson

from backend.chat.models import MAX_DEPTH, Json


def load(body: bytes) -> Json:
    """Returns the value. Raises ValueError for invalid JSON, nesting deeper than MAX_DEPTH, and NUL in a string."""
    value = orjson.loads(body)
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Json] = []
        for one in level:
            if isinstance(one, str):
                _check(one)
            elif isinstance(one, dict):
                for key in one:
                    _check(key)
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return value
        level = below
    raise ValueError("nested too deeply")


def _check(text: str) -> None:
    if "\0" in text:
        raise ValueError("a NUL")

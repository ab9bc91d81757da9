"""JSON of the generator, read as strictly as what comes by the webhook: only what every store can hold."""

from __future__ import annotations

import orjson

from backend.chat.models import Json

MAX_DEPTH = 32


def load(body: bytes) -> Json:
    """The value of a JSON document. Raises ValueError: no JSON, nested deeper than MAX_DEPTH, or a NUL in a text."""
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

"""Redaction of text from other services, so that it can be shown: short, without addresses, paths and secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from backend.chat.models import Json

MAX_TEXT, MAX_ITEMS, MAX_DEPTH = 300, 20, 3  # characters, items of a list or an object, levels
HIDDEN, SECRET = "[…]", "[REDACTED]"
_READ_AT_MOST = 10 * MAX_TEXT  # characters
_SECRET_NAME = re.compile(
    r"(^|[^a-z])(api_?key|password|passwd|pwd|secret|token|credentials?|authorization|private_?key|access_?key|bearer)"
    r"([^a-z]|$)"
)
_EQUALS = frozenset({"is", "was", "=", ":", "->"})
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLACE = re.compile(
    r"[/\\@]|(?i:https?|localhost)"  # URLs, paths, mail addresses
    r"|[\w-]\.[^\W\d]\w"  # names with dots in them: hosts, modules, files
    r"|\d\.\d+\.\d+\.\d|:[0-9a-fA-F]*:|\w:\d"  # IP addresses, ports
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LONG = re.compile(r"[\w+=.~-]{20,}")


def safe_text(text: str) -> str:
    """Returns one line of at most MAX_TEXT characters, with words hidden that may hold addresses or secrets."""
    visible = "".join(c for c in text[:_READ_AT_MOST] if c.isprintable() or c.isspace())
    line = " ".join(_safe_words(visible.split()))
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def _safe_words(words: Iterable[str]) -> Iterator[str]:
    named = value_next = False  # a secret was named; the next word is its value
    for word in words:
        if named and word.lower() in _EQUALS:
            value_next = True
            yield word
        elif value_next and not _names_secret(word):
            named = value_next = False
            yield SECRET
        else:
            named = _names_secret(word)
            value_next = named and (word[-1] in ":=" or word.lower() == "bearer")
            yield _safe_word(word)


def safe_details(value: Json) -> Json:
    """Returns the JSON value cut to MAX_DEPTH levels of MAX_ITEMS each, with strings and keys as in `safe_text`."""
    return _safe(value, 0)


def _safe(value: Json, depth: int) -> Json:
    if isinstance(value, str):
        return safe_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= MAX_DEPTH:
        return HIDDEN
    if isinstance(value, dict):
        return {
            safe_text(key): SECRET if _names_secret(key) else _safe(below, depth + 1)
            for key, below in islice(value.items(), MAX_ITEMS)
        }
    return [_safe(below, depth + 1) for below in value[:MAX_ITEMS]]


def _safe_word(word: str) -> str:
    if _PLACE.search(word):
        return HIDDEN
    bare = word.strip("\"'`()[]{}<>,;:.!?")
    if _names_secret(word) and re.search(r"[=:].", word):
        return SECRET
    return SECRET if any(map(_is_opaque, _LONG.findall(bare))) and not _UUID.fullmatch(bare) else word


def _is_opaque(run: str) -> bool:
    return re.search(r"\d", run) is not None and re.search(r"[A-Za-z]", run) is not None


def _names_secret(word: str) -> bool:
    name = _HUMP.sub("_", word).lower().replace("-", "_")
    return _SECRET_NAME.search(name) is not None

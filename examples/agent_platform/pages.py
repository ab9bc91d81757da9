"""The visible text of web pages.

It is found by a few searches that go over a page once. The parser of Python 3.11 takes minutes for some small pages.
"""

from __future__ import annotations

import re
from html import unescape

_HIDDEN = re.compile(r"<(script|style|template|noscript|svg|head)\b|<!--", re.IGNORECASE)
_TAG = re.compile(r"</?([a-z][a-z0-9]{0,20})[^<>]*>|<[!?/][^<>]*>", re.IGNORECASE)
_INLINE = {"a", "abbr", "b", "cite", "code", "em", "i", "mark", "q", "s", "small", "span", "strong", "sub", "sup", "u"}


def text_of_html(page: str) -> str:
    """Returns the visible text of a page, one line for each piece."""
    text = _TAG.sub(_separator, "".join(_shown_parts(page)))
    lines = (" ".join(line.split()) for line in unescape(text).split("\n"))
    return "\n".join(line for line in lines if line)


def _shown_parts(page: str) -> list[str]:
    """Returns the parts of a page between its hidden elements and comments."""
    parts: list[str] = []
    at = 0
    while (found := _HIDDEN.search(page, at)) is not None:
        parts.append(page[at : found.start()])
        end = "-->" if found[1] is None else f"</{found[1]}"
        closing = re.compile(re.escape(end), re.IGNORECASE).search(page, found.end())
        if closing is None:
            return parts
        at = closing.end() if found[1] is None else closing.start()
    return [*parts, page[at:]]


def _separator(tag: re.Match[str]) -> str:
    return "" if tag[1] is not None and tag[1].lower() in _INLINE else "\n"

"""A short way to read the deltas of an answer's text.

The payloads of a stream's deltas are mostly equal but for the text. So the bytes before and after the text are learned
from one payload that was read in the ordinary way; later payloads with the same bytes are not parsed as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from executor.llm.events import ModelEvent, TextDelta
from executor.llm.sse import read_json

MOST_LESSONS = 8
"""Payloads that are learned from. A server whose payloads always differ, as by a number, costs no more after that."""
_PROBE = "~"


class DeltaTemplate:
    """Knows one kind of payload. `text_in` finds the text of a delta in a JSON document, or None if the document holds
    anything else that an answer needs. It must look at every member that is read in the ordinary way.
    """

    __slots__ = ("_head", "_least", "_lessons", "_tail", "_text_in")

    def __init__(self, text_in: Callable[[object], str | None]) -> None:
        self._text_in = text_in
        self._head = self._tail = b""
        self._least = 0
        self._lessons = MOST_LESSONS

    def text_of(self, payload: bytes) -> str | None:
        """Returns the text of a payload that differs from the learned one in its text alone. It is never empty.

        Returns None for any other payload, and for a text that JSON escapes.
        """
        if not self._head or len(payload) <= self._least:
            return None
        if not payload.startswith(self._head) or not payload.endswith(self._tail):
            return None
        middle = payload[len(self._head) : len(payload) - len(self._tail)]
        if b'"' in middle or b"\\" in middle:
            return None
        try:
            text = middle.decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() else None  # a control character is no JSON

    def learn(self, payload: bytes, events: Sequence[ModelEvent]) -> None:
        """Learns from a payload that gave these events, if they are one text."""
        if not self._lessons or len(events) != 1 or type(event := events[0]) is not TextDelta:
            return
        self._lessons -= 1
        text = b'"%b"' % event.text.encode("utf-8", "replace")
        if payload.count(text) != 1:
            return
        head, _, tail = payload.partition(text)
        head, tail = head + b'"', b'"' + tail
        try:
            found = self._text_in(read_json(payload)), self._text_in(read_json(head + _PROBE.encode() + tail))
        except (ValueError, LookupError, TypeError, AttributeError):
            return
        if found == (event.text, _PROBE):
            self._head, self._tail, self._least = head, tail, len(head) + len(tail)

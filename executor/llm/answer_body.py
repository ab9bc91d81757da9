"""The body of an answer with a status of success, as servers give it.

A model server sends a stream of events (SSE). Some servers and gateways send one JSON document instead, which may be an
error. If the body is a web page or other text, the address is not that of a model server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from backend.chat.models import Json
from executor.llm.events import ModelEvent
from executor.llm.failures import ModelCallError, of_page
from executor.llm.provider_words import masked
from executor.llm.sse import MAX_EVENT_BYTES, SseParser, read_json

_BLANK = b" \t\r\n\xef\xbb\xbf"


class Decoder(Protocol):
    """A converter from the payloads of one answer to events. `feed`, `whole` and `end` raise ModelCallError."""

    @property
    def reason_known(self) -> bool:
        """Returns True if the finish reason has arrived. The answer is then usable even if the connection breaks."""
        ...

    @property
    def done(self) -> bool:
        """Returns True if the provider has marked the end of the stream."""
        ...

    def feed(self, payload: bytes) -> Sequence[ModelEvent]: ...

    def whole(self, document: Json) -> Sequence[ModelEvent]:
        """Reads an answer that is one JSON document."""
        ...

    def end(self) -> Sequence[ModelEvent]:
        """Returns the last events. Raises ModelCallError `provider_incomplete` if no finish reason has arrived."""
        ...


_UNREADABLE = (LookupError, TypeError, AttributeError, ValueError, RecursionError)
"""Errors of reading what the provider sent."""
Read = tuple[list[ModelEvent], ModelCallError | None]
"""Events, and the failure that follows them if there is one."""


class AnswerBody:
    """A reader of one body. The first byte that is not blank tells what kind it is."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._parser = SseParser()
        self._is_stream: bool | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._head = b""
        self._events_seen = False

    def feed(self, chunk: bytes) -> Read:
        """Decodes a piece, which may hold anything."""
        if self._is_stream is None:
            chunk = chunk.lstrip(_BLANK)
            if not chunk:
                return [], None
            self._is_stream = chunk[:1] not in b"{[<"
        if self._is_stream:
            if not self._events_seen:
                self._head = (self._head + chunk)[:2_000]
            return self._decode(self._parser.feed, chunk)
        self._pieces.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_EVENT_BYTES:
            return [], ModelCallError("provider_error", note="the answer is too large")
        return [], None

    def end(self) -> Read:
        """Decodes what is left when the body has ended."""
        if self._is_stream is None:
            return [], None
        if self._is_stream:
            events, failure = self._decode(self._parser.end)
            if failure is None and not self._events_seen and not self._head.startswith((b":", b"event:", b"id:")):
                said = masked(self._head.decode("utf-8", "replace"))
                failure = ModelCallError("provider_incomplete", again=True, note="no event in the answer", said=said)
            return events, failure
        return self._whole()

    def _whole(self) -> Read:
        body = b"".join(self._pieces)
        self._pieces.clear()
        if body[:1] == b"<":
            return [], of_page(body.decode("utf-8", "replace"))
        return _guarded(lambda events: events.extend(self._decoder.whole(read_json(body))))

    def _decode(self, parse: Callable[..., list[bytes]], *chunk: bytes) -> Read:
        """Decodes the events that the parser finds. Collects them until a failure, as `_guarded` does."""
        events: list[ModelEvent] = []
        try:
            for payload in parse(*chunk):
                if not payload or payload.isspace():  # some gateways send empty events while a model is silent
                    continue
                self._events_seen = True
                events += self._decoder.feed(payload)
        except (ModelCallError, *_UNREADABLE) as error:
            return events, _failure_of(error)
        return events, None


def _guarded(work: Callable[[list[ModelEvent]], None]) -> Read:
    """Collects events until a failure, which may be one of reading what the provider sent."""
    events: list[ModelEvent] = []
    try:
        work(events)
    except (ModelCallError, *_UNREADABLE) as error:
        return events, _failure_of(error)
    return events, None


def _failure_of(error: Exception) -> ModelCallError:
    if isinstance(error, ModelCallError):
        return error
    return ModelCallError("provider_error", again=True, note=f"unreadable: {type(error).__name__}")

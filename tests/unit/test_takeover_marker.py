"""Tests of the marker that a takeover leaves in a stream for its readers."""

from __future__ import annotations

import pytest

from backend.chat.protocol.chunks import (
    FENCE,
    Chunk,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    encode,
)
from backend.chat.streams.streams import Entry
from backend.chat.streams.takeover_marker import ANEW, RESET, Journal, Marker, PartEvent
from backend.ids import StreamId


def _entries(fence: int, *chunks: Chunk | bytes) -> list[Entry]:
    bodies = [chunk if isinstance(chunk, bytes) else encode(chunk) for chunk in chunks]
    return [Entry(StreamId(fence, seq), body) for seq, body in enumerate(bodies, 1)]


_TAIL = _entries(
    7001,
    StartStep(),
    TextStart("t1"),
    TextDelta("t1", "a"),
    TextEnd("t1"),
    ToolInputAvailable("c1", "look_up", {"x": 1}),
)
_EVENTS = (
    PartEvent(7001, 1, "start-step", None, None),
    PartEvent(7001, 2, "text-start", "t1", None),
    PartEvent(7001, 4, "text-end", "t1", None),
    PartEvent(7001, 5, "tool-input-available", "c1", "look_up"),
)


def _events(*pages: list[Entry]) -> tuple[PartEvent, ...]:
    journal = Journal()
    for page in pages:
        journal.read(page)
    return journal.events()


@pytest.mark.parametrize(
    "marker",
    [
        ANEW,
        Marker(StreamId(7001, 5), StreamId(7002, 9), True, ()),
        Marker(StreamId(1, 2), StreamId(3, 4), False, _EVENTS),
    ],
)
def test_an_encoded_marker_is_parsed_to_the_same_marker(marker: Marker) -> None:
    body = marker.encode()
    assert Marker.parse(body) == marker
    assert body.isascii()
    assert b"\n" not in body


def test_a_field_that_a_newer_version_adds_is_ignored() -> None:
    assert Marker.parse(ANEW.encode().replace(b"{", b'{"schema":2,', 1)) == ANEW


@pytest.mark.parametrize("body", [FENCE, b"!end", encode(StartStep())])
def test_other_entries_are_not_markers(body: bytes) -> None:
    assert Marker.find(body) is None
    with pytest.raises(ValueError, match="not a marker"):
        Marker.parse(body)


def test_a_journal_keeps_openings_and_closings_but_no_text() -> None:
    assert _events(_TAIL[:2], _TAIL[2:]) == _EVENTS


def test_an_earlier_marker_contributes_its_events_and_a_reset() -> None:
    marker = Marker(StreamId(7000, 9), StreamId(7001, 5), False, _EVENTS)
    found = _events(_entries(7002, FENCE, marker.encode(), TextStart("t2")))
    assert found == (*_EVENTS, PartEvent(7002, 2, RESET, None, None), PartEvent(7002, 3, "text-start", "t2", None))


def test_an_event_found_in_an_entry_and_in_a_marker_counts_once() -> None:
    marker = Marker(StreamId(7000, 9), StreamId(7001, 5), False, _EVENTS)
    assert _events(_TAIL, _entries(7002, FENCE, marker.encode())) == (*_EVENTS, PartEvent(7002, 2, RESET, None, None))


def test_events_from_before_a_restart_of_the_stream_do_not_count() -> None:
    assert _events(_TAIL, _entries(7002, FENCE, ANEW.encode(), TextStart("t2"))) == (
        PartEvent(7002, 3, "text-start", "t2", None),
    )


def test_a_marker_inside_a_step_adds_no_event() -> None:
    marker = Marker(StreamId(7001, 5), StreamId(7001, 9), True, ())
    assert _events(_TAIL, _entries(7002, FENCE, marker.encode())) == _EVENTS

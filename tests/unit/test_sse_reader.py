"""Tests of the strict reader of event streams that other tests use."""

import pytest

from tests.e2e.sse import Event, SseParser, text_of
from tests.faults.tabs import without_torn

STREAM = ': open\n\nid: 1-1\ndata: {"a":"\u2028\u0085é"}\n\nid:1-2\ndata:x\ndata: y\n\n: beat\n\ndata: [DONE]\n\n'
EVENTS = [Event("1-1", '{"a":"\u2028\u0085é"}'), Event("1-2", "x\ny"), Event(None, "[DONE]")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_how_the_bytes_are_split(size: int, end: str) -> None:
    parser = SseParser()
    data = STREAM.replace("\n", end).encode()
    events = [event for at in range(0, len(data), size) for event in parser.feed(data[at : at + size])]
    assert events == EVENTS
    assert parser.comments == 2


def test_an_incomplete_event_is_not_returned() -> None:
    assert SseParser().feed(b"id: 1-1\ndata: {}\n") == []


def test_the_text_of_a_step_that_was_reset_is_removed() -> None:
    chunks = ['{"type":"start-step"}', '{"type":"text-delta","id":"t","delta":"a"}', '{"type":"reset-step"}']
    again = ['{"type":"text-delta","id":"t","delta":"b"}', '{"type":"start-step"}', chunks[1]]
    assert text_of(Event(None, chunk) for chunk in [*chunks, *again]) == "ba"


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        (["a1 a2", "b1 b2"], ["a1 a2", "b1 b2"]),
        (["a1", "a1 a2", "", "b1 b2"], ["a1 a2", "b1 b2"]),
        (["a1 a2", "b1 b2", "b1 b2"], ["a1 a2", "b1 b2"]),  # interrupted after its last word
        (["a1 a2 a1", "a1 a2", "b1 b2"], ["a1 a2 a1", "a1 a2", "b1 b2"]),  # not the beginning of a step
        (["a1 a2", "b2"], ["a1 a2", "b2"]),
        (["a1 a2", "b1 b2", "b2"], ["a1 a2", "b1 b2", "b2"]),
    ],
)
def test_only_an_interrupted_step_is_left_out(steps: list[str], kept: list[str]) -> None:
    assert without_torn(steps, ["a1 a2", "b1 b2"]) == (kept, len(steps) - len(kept))

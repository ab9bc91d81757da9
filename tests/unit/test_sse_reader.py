"""The tests' own reader of event streams must not miss what a lenient one would hide."""

import pytest

from tests.e2e.sse import Event, SseParser, text_of
from tests.faults.tabs import without_torn

STREAM = ': open\n\nid: 1-1\ndata: {"a":"\u2028\u0085é"}\n\nid:1-2\ndata:x\ndata: y\n\n: beat\n\ndata: [DONE]\n\n'
EVENTS = [Event("1-1", '{"a":"\u2028\u0085é"}'), Event("1-2", "x\ny"), Event(None, "[DONE]")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_come_out_the_same_however_the_bytes_are_cut(size: int, end: str) -> None:
    parser = SseParser()
    data = STREAM.replace("\n", end).encode()
    events = [event for at in range(0, len(data), size) for event in parser.feed(data[at : at + size])]
    assert events == EVENTS
    assert parser.comments == 2


def test_half_an_event_is_no_event() -> None:
    assert SseParser().feed(b"id: 1-1\ndata: {}\n") == []


def test_the_text_of_a_step_that_was_taken_back_is_gone() -> None:
    chunks = ['{"type":"start-step"}', '{"type":"text-delta","id":"t","delta":"a"}', '{"type":"reset-step"}']
    again = ['{"type":"text-delta","id":"t","delta":"b"}', '{"type":"start-step"}', chunks[1]]
    assert text_of(Event(None, chunk) for chunk in [*chunks, *again]) == "ba"


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        (["a1 a2", "b1 b2"], ["a1 a2", "b1 b2"]),
        (["a1", "a1 a2", "", "b1 b2"], ["a1 a2", "b1 b2"]),
        (["a1 a2", "b1 b2", "b1 b2"], ["a1 a2", "b1 b2"]),  # torn after its last word
        (["a1 a2 a1", "a1 a2", "b1 b2"], ["a1 a2 a1", "a1 a2", "b1 b2"]),  # no beginning of it
        (["a1 a2", "b2"], ["a1 a2", "b2"]),
        (["a1 a2", "b1 b2", "b2"], ["a1 a2", "b1 b2", "b2"]),
    ],
)
def test_only_a_torn_step_is_left_out(steps: list[str], kept: list[str]) -> None:
    assert without_torn(steps, ["a1 a2", "b1 b2"]) == (kept, len(steps) - len(kept))

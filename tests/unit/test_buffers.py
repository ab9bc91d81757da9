"""What a writer holds until it leaves."""

from __future__ import annotations

import json
from itertools import groupby

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.chat.buffers import BATCH_CAP, BATCH_ENTRIES, ENTRY_COST, RUN_CAP, ChunkBuffer
from backend.chat.chunks import (
    Chunk,
    Data,
    ReasoningDelta,
    StartStep,
    TextDelta,
    TextEnd,
    ToolInputDelta,
    encode,
)

_ids = st.sampled_from(["t1", "t2", 'é"\\\n'])
_text = st.text(max_size=12)
_chunks: st.SearchStrategy[Chunk] = st.one_of(
    st.builds(TextDelta, _ids, _text),
    st.builds(ReasoningDelta, _ids, _text),
    st.builds(ToolInputDelta, _ids, _text),
    st.builds(StartStep),
    st.builds(TextEnd, _ids),
)
_TAKE = None


def _kind_and_part(chunk: Chunk) -> tuple[str, str]:
    document = orjson.loads(encode(chunk))
    return document["type"], document.get("id") or document.get("toolCallId") or ""


def _merged(chunks: list[Chunk]) -> list[tuple[str, str, str]]:
    """(kind, part, text) with neighbouring deltas of one part as one: the meaning of a stretch of a stream."""
    rows = []
    for (kind, part), run in groupby(chunks, key=_kind_and_part):
        texts = [getattr(chunk, "delta", "") for chunk in run]
        rows += [(kind, part, "".join(texts))] if kind.endswith("-delta") else [(kind, part, "")] * len(texts)
    return rows


def _meaning(bodies: list[bytes]) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for body in bodies:
        document = json.loads(body)
        kind, part = document["type"], document.get("id") or document.get("toolCallId") or ""
        text = document.get("delta", document.get("inputTextDelta", ""))
        if kind.endswith("-delta") and rows and rows[-1][:2] == (kind, part):
            rows[-1] = (kind, part, rows[-1][2] + text)
        else:
            rows.append((kind, part, text))
    return rows


@given(st.lists(st.one_of(_chunks, st.none()), max_size=60))
def test_whenever_it_is_emptied_the_meaning_stays_the_same(acts: list[Chunk | None]) -> None:
    buffer, bodies = ChunkBuffer(), []
    for act in acts:
        if act is _TAKE:
            bodies += buffer.take()
        else:
            buffer.add(act)
    while buffer:
        bodies += buffer.take()
    assert _meaning(bodies) == _merged([act for act in acts if act is not None])
    assert buffer.size == 0
    assert all(body.isascii() and b"\n" not in body for body in bodies)


@given(_chunks)
@example(TextDelta("é", "\x7f"))
def test_the_bytes_are_those_of_the_one_encoder(chunk: Chunk) -> None:
    buffer = ChunkBuffer()
    buffer.add(chunk)
    assert buffer.take() == [encode(chunk)]


def test_neighbouring_deltas_of_one_part_leave_as_one() -> None:
    buffer = ChunkBuffer()
    for word in ("one ", "two ", "three"):
        buffer.add(TextDelta("t1", word))
    assert buffer.take() == [b'{"type":"text-delta","id":"t1","delta":"one two three"}']


def test_nothing_merges_into_what_was_taken() -> None:
    buffer = ChunkBuffer()
    buffer.add(TextDelta("t1", "a"))
    taken = buffer.take()
    buffer.add(TextDelta("t1", "b"))
    assert (taken, buffer.take()) == ([encode(TextDelta("t1", "a"))], [encode(TextDelta("t1", "b"))])


def test_a_batch_holds_at_most_its_number_of_entries() -> None:
    buffer = ChunkBuffer()
    for i in range(BATCH_ENTRIES + 1):
        buffer.add(Data("n", i))
    assert [len(buffer.take()), len(buffer.take())] == [BATCH_ENTRIES, 1]


def test_a_batch_ends_with_the_entry_that_fills_it() -> None:
    buffer = ChunkBuffer()
    for _ in range(3):
        buffer.add(Data("n", "x" * BATCH_CAP))
    assert [len(buffer.take()) for _ in range(3)] == [1, 1, 1]


def test_a_merged_delta_has_a_greatest_length() -> None:
    buffer = ChunkBuffer()
    for _ in range(3):
        buffer.add(TextDelta("t1", "x" * RUN_CAP))
    assert [len(json.loads(body)["delta"]) for body in buffer.take()] == [RUN_CAP] * 3


def test_empty_deltas_fill_the_buffer_too() -> None:
    buffer = ChunkBuffer()
    for _ in range(10):
        buffer.add(TextDelta("t1", ""))
    assert buffer.size == 10 * ENTRY_COST


@pytest.mark.parametrize(
    "chunk",
    [TextDelta("t1", None), TextDelta("t1", b"x"), Data("n", object())],  # type: ignore[arg-type]
)
def test_what_json_cannot_say_is_refused_and_leaves_the_buffer_as_it_was(chunk: Chunk) -> None:
    buffer = ChunkBuffer()
    buffer.add(TextDelta("t1", "a"))
    with pytest.raises((TypeError, ValueError)):
        buffer.add(chunk)
    buffer.add(TextDelta("t1", "b"))
    assert buffer.take() == [encode(TextDelta("t1", "ab"))]


def test_a_surrogate_pair_in_two_deltas_is_whole_when_they_merge() -> None:
    buffer = ChunkBuffer()
    buffer.add(TextDelta("t1", "\ud83d"))
    buffer.add(TextDelta("t1", "\ude00"))
    assert json.loads(buffer.take()[0])["delta"] == "😀"

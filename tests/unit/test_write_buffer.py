"""Tests of the buffer that holds the chunks of a writer until they are appended to the stream."""

from __future__ import annotations

import json
from itertools import groupby

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.chat.protocol.chunks import (
    Chunk,
    Data,
    ReasoningDelta,
    StartStep,
    TextDelta,
    TextEnd,
    ToolInputDelta,
    encode,
)
from backend.chat.streams.write_buffer import BATCH_CAP, BATCH_ENTRIES, ENTRY_COST, RUN_CAP, ChunkBuffer

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


def _merged_chunks(chunks: list[Chunk]) -> list[tuple[str, str, str]]:
    """Returns triples of kind, part and text, in which neighbouring deltas of one part are joined."""
    rows = []
    for (kind, part), run in groupby(chunks, key=_kind_and_part):
        texts = [getattr(chunk, "delta", "") for chunk in run]
        rows += [(kind, part, "".join(texts))] if kind.endswith("-delta") else [(kind, part, "")] * len(texts)
    return rows


def _merged_bodies(bodies: list[bytes]) -> list[tuple[str, str, str]]:
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
def test_the_content_does_not_depend_on_when_the_buffer_is_emptied(actions: list[Chunk | None]) -> None:
    buffer, bodies = ChunkBuffer(), []
    for action in actions:
        if action is _TAKE:
            bodies += buffer.take()
        else:
            buffer.add(action)
    while buffer:
        bodies += buffer.take()
    assert _merged_bodies(bodies) == _merged_chunks([action for action in actions if action is not None])
    assert buffer.size == 0
    assert all(body.isascii() and b"\n" not in body for body in bodies)


@given(_chunks)
@example(TextDelta("é", "\x7f"))
def test_the_buffer_encodes_a_chunk_as_encode_does(chunk: Chunk) -> None:
    buffer = ChunkBuffer()
    buffer.add(chunk)
    assert buffer.take() == [encode(chunk)]


def test_neighbouring_deltas_of_one_part_are_merged() -> None:
    buffer = ChunkBuffer()
    for word in ("one ", "two ", "three"):
        buffer.add(TextDelta("t1", word))
    assert buffer.take() == [b'{"type":"text-delta","id":"t1","delta":"one two three"}']


def test_a_delta_is_not_merged_into_a_batch_that_was_taken() -> None:
    buffer = ChunkBuffer()
    buffer.add(TextDelta("t1", "a"))
    taken = buffer.take()
    buffer.add(TextDelta("t1", "b"))
    assert (taken, buffer.take()) == ([encode(TextDelta("t1", "a"))], [encode(TextDelta("t1", "b"))])


def test_a_batch_has_a_maximum_number_of_entries() -> None:
    buffer = ChunkBuffer()
    for i in range(BATCH_ENTRIES + 1):
        buffer.add(Data("n", i))
    assert [len(buffer.take()), len(buffer.take())] == [BATCH_ENTRIES, 1]


def test_a_batch_ends_with_the_entry_that_fills_it() -> None:
    buffer = ChunkBuffer()
    for _ in range(3):
        buffer.add(Data("n", "x" * BATCH_CAP))
    assert [len(buffer.take()) for _ in range(3)] == [1, 1, 1]


def test_a_merged_delta_has_a_maximum_length() -> None:
    buffer = ChunkBuffer()
    for _ in range(3):
        buffer.add(TextDelta("t1", "x" * RUN_CAP))
    assert [len(json.loads(body)["delta"]) for body in buffer.take()] == [RUN_CAP] * 3


def test_empty_deltas_count_towards_the_size_of_the_buffer() -> None:
    buffer = ChunkBuffer()
    for _ in range(10):
        buffer.add(TextDelta("t1", ""))
    assert buffer.size == 10 * ENTRY_COST


@pytest.mark.parametrize(
    "chunk",
    [TextDelta("t1", None), TextDelta("t1", b"x"), Data("n", object())],  # type: ignore[arg-type]
)
def test_a_chunk_that_json_cannot_represent_is_refused_and_changes_nothing(chunk: Chunk) -> None:
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

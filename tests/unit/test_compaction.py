from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.chat.protocol.chunks import (
    Chunk,
    Data,
    ReasoningDelta,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolInputDelta,
    encode,
)
from backend.chat.streams.compaction import RUN_BYTES, merged_frames
from backend.chat.streams.streams import Entry
from backend.ids import StreamId
from tests.sse_client import StrictClient

_IDS = st.sampled_from(["t1", "t2", '"delta":"', 'a\\","delta":"', '"inputTextDelta":"'])
_TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=5), st.sampled_from(['"}', '"', "\\", '\\"}', "\u2028", ""])
)
_CHUNKS = st.one_of(
    st.builds(TextDelta, _IDS, _TEXTS),
    st.builds(ReasoningDelta, _IDS, _TEXTS),
    st.builds(ToolInputDelta, _IDS, _TEXTS),
    st.builds(TextStart, _IDS),
    st.builds(TextEnd, _IDS),
    st.builds(ToolInputAvailable, _IDS, _IDS, _TEXTS),
    st.builds(Data, st.just("x"), _TEXTS),
)


class _Collector(StrictClient):
    def _apply(self, kind: str, chunk: dict[str, object]) -> None:
        pass


def _entries(chunks: list[Chunk]) -> list[Entry]:
    return [Entry(StreamId(7001, seq), encode(chunk)) for seq, chunk in enumerate(chunks, 1)]


def _received(frames: list[bytes]) -> _Collector:
    client = _Collector()
    client.feed(b"".join(frames))
    return client


def _joined(chunks: list[dict[str, object]]) -> list[dict[str, object]]:
    """Joins neighbouring deltas of one part, which is all that compaction may do."""
    joined: list[dict[str, object]] = []
    for chunk in chunks:
        text = "inputTextDelta" if chunk["type"] == "tool-input-delta" else "delta"
        if joined and text in chunk and {**joined[-1], text: 0} == {**chunk, text: 0}:
            joined[-1] = {**chunk, text: f"{joined[-1][text]}{chunk[text]}"}
        else:
            joined.append(chunk)
    return joined


@given(st.lists(_CHUNKS, max_size=30))
def test_a_compacted_replay_has_the_same_content(chunks: list[Chunk]) -> None:
    entries = _entries(chunks)
    plain = _received([b"id: %d-%d\ndata: %b\n\n" % (*entry.id, entry.body) for entry in entries])
    compact = _received(merged_frames(entries))
    assert compact.chunks == _joined(plain.chunks)
    assert not entries or compact.ids[-1] == entries[-1].id


def test_a_surrogate_pair_that_was_split_between_two_deltas_is_joined() -> None:
    parts = [b'{"type":"text-delta","id":"t","delta":"%b"}' % half for half in (b"\\ud83d", b"\\ude00")]
    frames = merged_frames([Entry(StreamId(7001, seq), body) for seq, body in enumerate(parts, 1)])
    assert _received(frames).chunks == [{"type": "text-delta", "id": "t", "delta": "\U0001f600"}]


def test_a_delta_with_other_fields_is_not_merged() -> None:
    body = b'{"type":"reasoning-delta","id":"r","delta":"x","providerMetadata":{"a":{"b":"c"}}}'
    frames = merged_frames([Entry(StreamId(7001, 1), body), Entry(StreamId(7001, 2), body)])
    assert len(frames) == 2


def test_a_run_of_merged_deltas_has_a_maximum_size() -> None:
    frames = merged_frames(_entries([TextDelta("t", "x" * 1000) for _ in range(1000)]))
    assert max(map(len, frames)) < RUN_BYTES + 2000
    assert len(frames) > 10

"""The counting of JSON before it is decoded: as exact as the decoder, wherever the pieces end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.api.json_meter import JsonMeter
from backend.errors import TooDeep, TooManyValues

TEXTS = st.text(st.sampled_from('ab"\\[]{},:é😀\n'), max_size=12)
DOCUMENTS = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


def counted(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else max(len(inner), 1) + sum(map(counted, inner))  # type: ignore[arg-type]


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def fed(meter: JsonMeter, body: bytes, size: int) -> JsonMeter:
    for at in range(0, len(body), size):
        meter.feed(body[at : at + size])
    return meter


@given(DOCUMENTS, st.integers(1, 40), st.booleans())
def test_values_and_depth_are_those_of_the_document_wherever_pieces_end(document: object, size: int, raw: bool) -> None:
    body = json.dumps(document, ensure_ascii=raw).encode()
    levels = depth(document)
    assert fed(JsonMeter(10_000, levels), body, size).values == counted(document)
    if levels:
        with pytest.raises(TooDeep):
            fed(JsonMeter(10_000, levels - 1), body, size)
        with pytest.raises(TooManyValues):
            fed(JsonMeter(counted(document) - 1, levels), body, size)


@pytest.mark.parametrize("body", [b"[{},{},", b'{"a":[[],[],', b'["a","b","c",', b'[{"a":1},{"a":1},'])
def test_the_count_comes_before_the_end_of_the_document(body: bytes) -> None:
    with pytest.raises(TooManyValues) as refused:
        JsonMeter(3, 9).feed(body)
    assert (refused.value.status, refused.value.code) == (413, "too_many_values")


def test_brackets_and_commas_in_strings_do_not_count() -> None:
    text = b"Dear all, [see] {this}, and, again, that: \\ \" '," * 5_000
    assert fed(JsonMeter(1, 1), json.dumps({"message": text.decode()}).encode(), 65_536).values == 1

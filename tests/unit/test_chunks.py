"""Tests of the bytes of chunks, which clients of every version can parse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chat.protocol.chunks import (
    Data,
    Finish,
    Start,
    TextDelta,
    ToolInputStart,
    ToolOutputAvailable,
    ascii_json,
    encode,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_value_becomes_ascii_json_without_nan(value: Any) -> None:
    encoded = ascii_json(value)
    assert encoded.isascii()
    assert b"\n" not in encoded
    json.loads(encoded, parse_constant=pytest.fail)


def test_big_integers_are_kept_and_nan_becomes_null() -> None:
    assert ascii_json([2**70, float("nan"), "é"]) == b'[1180591620717411303424,null,"\\u00e9"]'


@given(st.text())
def test_any_text_survives_encoding(text: str) -> None:
    assert json.loads(encode(TextDelta("t1", text)))["delta"] == text


def test_keys_without_a_value_are_left_out_and_an_output_may_be_null() -> None:
    assert encode(Start("m1")) == b'{"type":"start","messageId":"m1"}'
    assert encode(Data("title", {"title": "x"}, transient=True)).endswith(b'"data":{"title":"x"},"transient":true}')
    assert b'"output":null' in encode(ToolOutputAvailable("c1", None))


def test_every_chunk_of_a_call_is_marked_as_run_by_the_server() -> None:
    for chunk in (ToolInputStart("c1", "x"), ToolOutputAvailable("c1", {})):
        assert b'"providerExecuted":true,"dynamic":true' in encode(chunk)


def test_finish_begins_with_the_exact_bytes_that_clients_search_for() -> None:
    assert encode(Finish("stop", {"status": "completed"})).startswith(b'{"type":"finish",')

"""The bytes of chunks: what clients of every version can parse, whatever stands in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chat.chunks import Data, Finish, Start, TextDelta, ToolInputStart, ToolOutputAvailable, ascii_json, encode

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


def test_big_integers_and_nan_side_by_side() -> None:
    assert ascii_json([2**70, float("nan"), "é"]) == b'[1180591620717411303424,null,"\\u00e9"]'


@given(st.text())
def test_any_text_comes_back_as_it_was(text: str) -> None:
    assert json.loads(encode(TextDelta("t1", text)))["delta"] == text


def test_keys_without_a_value_are_left_out_and_an_output_may_be_null() -> None:
    assert encode(Start("m1")) == b'{"type":"start","messageId":"m1"}'
    assert encode(Data("title", {"title": "x"}, transient=True)).endswith(b'"data":{"title":"x"},"transient":true}')
    assert b'"output":null' in encode(ToolOutputAvailable("c1", None))


def test_every_chunk_of_a_call_says_that_the_server_runs_it() -> None:
    for chunk in (ToolInputStart("c1", "x"), ToolOutputAvailable("c1", {})):
        assert b'"providerExecuted":true,"dynamic":true' in encode(chunk)


def test_finish_is_compact_as_clients_look_for_its_bytes() -> None:
    assert encode(Finish("stop", {"status": "completed"})).startswith(b'{"type":"finish",')

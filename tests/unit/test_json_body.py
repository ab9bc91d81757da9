"""Strict JSON: whatever the bytes, a value that every store can hold, or a named error."""

from __future__ import annotations

import json
import math
import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.api.json_body import MAX_EARLIER, load_conversation, load_json
from backend.chat.models import MAX_DEPTH
from backend.errors import AppError

ROWS: list[tuple[bytes, str]] = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b'{"a":1,}', "invalid_json"),
    (b"{'a':1}", "invalid_json"),
    (b"\xff\xfe", "invalid_json"),
    (b'"\xed\xa0\x80"', "invalid_json"),
    (b"\xef\xbb\xbf{}", "invalid_json"),
    (b'"line\nbreak"', "invalid_json"),
    (rb'"\ud800"', "invalid_unicode"),
    (rb'{"\udc00":1}', "invalid_unicode"),
    (rb'["a\u0000b"]', "invalid_unicode"),
    (b"[" * 33 + b"]" * 33, "too_deep"),
    (b'{"a":' * 900 + b"1" + b"}" * 900, "too_deep"),
    (b"[" * 100_000, "too_deep"),
    (b"NaN", "invalid_number"),
    (b"[-Infinity]", "invalid_number"),
    (b"1e999", "invalid_number"),
    (b"9" * 5_000, "invalid_number"),
    (b"18446744073709551616", "invalid_number"),
    (b'{"a":1,"a":1}', "duplicate_key"),
    (rb'{"a":1,"\u0061":2}', "duplicate_key"),
]


@pytest.mark.parametrize(("body", "code"), ROWS, ids=[f"{body[:16]!r}" for body, _ in ROWS])
def test_each_refused_body_has_its_code(body: bytes, code: str) -> None:
    with pytest.raises(AppError) as refused:
        load_json(body)
    assert refused.value.code == code
    assert refused.value.status in (400, 422)


def test_a_valid_body_is_read() -> None:
    nested: object = 1
    for _ in range(MAX_DEPTH):
        nested = [nested]
    assert load_json(json.dumps(nested).encode()) == nested
    assert load_json(rb'{"a":"\ud83d\ude00\n","b":[18446744073709551615,-1.5e300,null,true]}') == {
        "a": "😀\n",
        "b": [2**64 - 1, -1.5e300, None, True],
    }


def conversation(earlier: bytes, said: bytes) -> bytes:
    return b"""{"messages":[{"role":"user","parts":[{"text":"old"}]},
        {"id":"a","role":"assistant","parts":[{"input":%s}],"metadata":{"x":%s}},
        {"id":"q","role":"user","parts":[{"type":"text","text":%s}]},
        {"role":"assistant","parts":[{"input":%s}]}]}""" % (earlier, earlier, said, earlier)


MOST = 1_000


@pytest.mark.parametrize("earlier", [b"[" * 40 + b"]" * 40, b"1" + b"0" * 20, b"1e999", rb'"\ud800"', rb'{"\u0000":1}'])
def test_of_a_conversation_only_the_last_message_of_the_user_is_judged_and_kept(earlier: bytes) -> None:
    """Of the messages before it, ids and roles tell which branch the page shows."""
    assert load_conversation(conversation(earlier, b'"new"'), MOST) == {
        "messages": [
            {"id": "a", "role": "assistant"},
            {"id": "q", "role": "user", "parts": [{"type": "text", "text": "new"}]},
        ]
    }
    with pytest.raises(AppError):
        load_conversation(conversation(b"1", earlier), MOST)


def test_only_what_is_kept_of_a_conversation_counts() -> None:
    many = b"[" + b"1," * MOST + b"1]"
    assert load_conversation(conversation(many, b'"new"'), MOST)
    with pytest.raises(AppError, match="too many values"):
        load_conversation(conversation(b"1", many), MOST)


@pytest.mark.parametrize(("body", "code"), ROWS, ids=[f"{body[:16]!r}" for body, _ in ROWS])
def test_beside_its_messages_a_conversation_is_judged_like_any_body(body: bytes, code: str) -> None:
    for outer in (body, b'{"messages":[{"id":"m","role":"user"}],"x":' + body + b"}"):
        with pytest.raises(AppError):
            load_conversation(outer, MOST)


@pytest.mark.parametrize(
    ("odd", "kept"),
    [(one, one) for one in (1, None, "x", [1], {"messages": 1}, {"messages": [None]}, {"messages": []})]
    + [({"messages": [1, {"parts": 1}, 2, {"role": "user"}]}, {"messages": [1, {"role": "user"}]})],
)
def test_a_body_that_is_no_conversation_is_left_to_the_schema(odd: object, kept: object) -> None:
    assert load_conversation(json.dumps(odd).encode(), MOST) == kept


@pytest.mark.parametrize("id", [1, None, ["a"], "", "x" * 256, "\0", "\ud800", "ö", "a\n"])
def test_an_id_that_no_message_can_have_is_not_kept(id: object) -> None:
    body = json.dumps({"messages": [{"id": id, "role": "assistant"}, {"id": "s", "role": "system"}, {"role": "user"}]})
    assert load_conversation(body.encode(), MOST) == {"messages": [{"role": "user"}]}


def test_of_a_long_conversation_the_newest_ids_are_kept() -> None:
    said = [{"id": f"m{n}", "role": "user"} for n in range(MAX_EARLIER + 9)]
    kept = load_conversation(json.dumps({"messages": said}).encode(), 10)["messages"]
    assert [one["id"] for one in kept] == [one["id"] for one in said[8:]]


TOKENS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"u", b"d800", b"0000", b"1", b"e", b"9" * 30, b"-", b".", b" "),
    *(b"true", b"null", b"NaN", b"\n", b"\x00", b"\xc3", b"\xa9", b'"a"', b'"a":', rb"\ud800", rb"\u0000", b"[" * 40),
]
SEEDS = [b'{"message":"x","context":{"url":null}}', rb'["\ud83d\ude00", {"a": [1, 2.5e3, true]}, ""]', b"1e3"]


def is_read_or_refused(body: bytes) -> None:
    try:
        value = load_json(body)
    except AppError:
        return
    stored = orjson.loads(orjson.dumps(value))
    assert stored == value or (isinstance(value, float) and math.isclose(stored, value))


def test_ten_thousand_broken_bodies_break_nothing() -> None:
    chance = random.Random(20261123)
    for _ in range(10_000):
        body = bytearray(chance.choice(SEEDS))
        for _ in range(chance.randint(1, 6)):
            place = chance.randint(0, len(body))
            body[place : place + chance.randint(0, 3)] = chance.choice(TOKENS)
        is_read_or_refused(bytes(body))


@settings(max_examples=300)
@given(st.binary(max_size=100) | st.lists(st.sampled_from(TOKENS), max_size=20).map(b"".join))
def test_no_body_breaks_it_and_what_comes_out_can_be_stored(body: bytes) -> None:
    is_read_or_refused(body)

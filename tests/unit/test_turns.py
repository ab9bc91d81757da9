"""Tests of the queue messages for turns and cancels."""

from __future__ import annotations

import orjson
import pytest

from backend.chat.models import Turn
from backend.chat.queue.turn_queue import UnreadableError, decode_turn, encode_cancel, encode_turn, task_named_by
from backend.ids import SessionId, TaskId

TURN = Turn(TaskId("t-1"), SessionId("s-1"))


def test_a_turn_is_decoded_as_it_was_encoded() -> None:
    assert orjson.loads(encode_turn(TURN)) == {"task_id": "t-1", "session_id": "s-1", "schema": 1}
    assert decode_turn(encode_turn(TURN)) == TURN


def test_fields_of_a_later_version_are_ignored() -> None:
    body = orjson.dumps({**orjson.loads(encode_turn(TURN)), "priority": 9, "more": {"x": [1]}})
    assert decode_turn(body) == TURN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"t-1"',
        b"{}",
        b'{"task_id": "t-1", "schema": 1}',
        b'{"task_id": "", "session_id": "s-1", "schema": 1}',
        b'{"task_id": 1, "session_id": "s-1", "schema": 1}',
        b'{"task_id": "t-1", "session_id": null, "schema": 1}',
        b'{"task_id": "t-1", "session_id": "s-1"}',
        b'{"task_id": "t-1", "session_id": "s-1", "schema": 2}',
        b'{"task_id": "' + b"t" * 65 + b'", "session_id": "s-1", "schema": 1}',
        b"[" * 5000,
    ],
)
def test_an_invalid_message_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode_turn(body)


def test_an_unreadable_message_may_still_name_its_task() -> None:
    assert task_named_by(b'{"task_id": "t-1", "schema": 2}') == "t-1"
    assert task_named_by(b'{"task_id": 7}') is None
    assert task_named_by(b"nonsense") is None


def test_a_cancel_message_names_its_task() -> None:
    assert task_named_by(encode_cancel(TaskId("t-1"))) == "t-1"

"""The interface of the turn queue, and the form of its messages. `rabbitmq` and `redis` implement it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeGuard

import orjson

from backend.chat.models import Turn
from backend.ids import SessionId, TaskId

SCHEMA = 1
"""The version of the messages."""
UNREADABLE = "unreadable"
"""The reason under which a message that is not a turn becomes a dead letter."""


class Delivery(Protocol):
    """A turn that an executor has taken. Settle it once, by one of the two methods.

    It is no error to settle it after the connection was lost.
    """

    @property
    def turn(self) -> Turn: ...
    async def ack(self) -> None:
        """Removes the turn from the queue: it is done and must not come again."""

    async def hand_back(self) -> bool:
        """Puts the turn at the back of the queue, for any executor. Returns True if the queue has it again.

        Returns False if the connection that brought the turn is gone, the turn was given to another executor, or it was
        settled before. The turn is then on the queue, with another executor, or nowhere. A caller that has released its
        claim must publish the turn again.
        """


class DeadTurn(Protocol):
    """A dead letter that names a task."""

    @property
    def task_id(self) -> TaskId: ...
    @property
    def reason(self) -> str: ...
    async def ack(self) -> None:
        """Removes the dead letter: it is done."""


class TurnQueue(Protocol):
    """A queue of turns, each delivered at least once, and a broadcast of cancel requests to all executors."""

    async def publish(self, turn: Turn) -> None:
        """Puts a turn on the queue, and returns when the broker has stored it.

        Raises Unavailable: at once if there is no connection, after 5 s if the broker does not answer. The turn may be
        on the queue nevertheless.
        """

    def consume(self, slots: int) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Takes turns, and never has more than `slots` unsettled ones. Continues by itself when a lost broker is back.

        The end of the block stops the taking. Unsettled turns can be settled until the queue is closed.
        """

    def dead_turns(self) -> AbstractAsyncContextManager[AsyncIterator[DeadTurn]]:
        """Takes dead letters, one at a time. Logs and drops letters that name no task."""

    async def publish_cancel(self, task_id: TaskId) -> None:
        """Sends a cancel request to every executor that listens. Only logs a failure: Postgres has the request."""

    def cancel_requests(self) -> AbstractAsyncContextManager[AsyncIterator[TaskId]]:
        """Receives all cancel requests from now on, except those sent while the broker is unavailable."""

    @property
    def healthy(self) -> bool:
        """Returns True if publishing works as far as is known, and so does every open consumer and listener."""
        ...

    @property
    def trouble(self) -> str | None:
        """Returns a word for readiness if the queue is connected and does not work: `blocked`. Otherwise None."""
        ...


class UnreadableError(ValueError):
    """The message is not a turn of a known schema."""


def encode_turn(turn: Turn) -> bytes:
    return orjson.dumps({"task_id": turn.task_id, "session_id": turn.session_id, "schema": SCHEMA})


def decode_turn(body: bytes) -> Turn:
    """Reads a message of `encode_turn`, and ignores unknown fields. Raises UnreadableError."""
    members = _members(body)
    task_id, session_id = members.get("task_id"), members.get("session_id")
    if members.get("schema") != SCHEMA or not _is_id(task_id) or not _is_id(session_id):
        raise UnreadableError
    return Turn(TaskId(task_id), SessionId(session_id))


def task_named_by(body: bytes) -> TaskId | None:
    """Returns the task that a message names, even if the message is not a turn. Returns None if it names none."""
    try:
        task_id = _members(body).get("task_id")
    except UnreadableError:
        return None
    return TaskId(task_id) if _is_id(task_id) else None


def encode_cancel(task_id: TaskId) -> bytes:
    """Returns the message of a cancel request, which `task_named_by` reads."""
    return orjson.dumps({"task_id": task_id, "schema": SCHEMA})


def _members(body: bytes) -> dict[str, object]:
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableError from error
    if not isinstance(members, dict):
        raise UnreadableError
    return members


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= 64

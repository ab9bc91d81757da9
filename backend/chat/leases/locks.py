"""The session lock: a lease in Redis that names the executor that runs a session now.

The lock saves work but protects nothing. The compare-and-set in Postgres and the ids in the stream decide what an
attempt may write (docs/decisions/0003-what-the-lock-protects.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from redis.asyncio import Redis

from backend.chat import keys
from backend.chat.scripts import Argument, Script
from backend.ids import ExecutorId, SessionId, TaskId

_RELEASE, _REFRESH, _TAKE_OVER = Script("lock_release"), Script("lock_refresh"), Script("lock_take_over")


class Holder(NamedTuple):
    """The value of a lock: the executor that holds it, and the task for which it does."""

    executor_id: ExecutorId
    task_id: TaskId

    def __str__(self) -> str:
        return f"{self.executor_id} {self.task_id}"

    @classmethod
    def parse(cls, value: bytes) -> Holder:
        executor_id, _, task_id = value.decode().partition(" ")
        return cls(ExecutorId(executor_id), TaskId(task_id))


class Locks:
    """The session locks, each of which lasts `ttl` seconds. Every method raises RedisError."""

    def __init__(self, redis: Redis, ttl: int) -> None:
        self._redis = redis
        self._milliseconds = ttl * 1000

    async def acquire(self, session_id: SessionId, holder: Holder) -> Holder | None:
        """Takes the lock if it is free. Returns None if `holder` has it now, otherwise the other holder."""
        value = str(holder)
        key = keys.lock_key(session_id)
        held = cast("bytes | None", await self._redis.set(key, value, nx=True, px=self._milliseconds, get=True))
        if held is None or held == value.encode():
            return None
        return Holder.parse(held)

    async def take_over(self, session_id: SessionId, dead: Holder, holder: Holder) -> bool:
        """Takes the lock from a dead holder. Returns False if another holder has it."""
        arguments = (str(dead), str(holder), self._milliseconds)
        return bool(await _TAKE_OVER.run(self._redis, [keys.lock_key(session_id)], arguments))

    async def refresh(self, held: Iterable[tuple[SessionId, Holder]]) -> None:
        """Extends every lock that its holder still has, and takes those that have expired."""
        calls: list[tuple[Sequence[str], Sequence[Argument]]] = [
            ([keys.lock_key(session_id)], (str(holder), self._milliseconds)) for session_id, holder in held
        ]
        for reply in await _REFRESH.run_many(self._redis, calls):
            if isinstance(reply, Exception):
                raise reply

    async def release(self, session_id: SessionId, holder: Holder) -> None:
        """Frees the lock if `holder` has it, and does nothing otherwise."""
        await _RELEASE.run(self._redis, [keys.lock_key(session_id)], [str(holder)])

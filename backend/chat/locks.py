"""The session lock: a lease in Redis that says which executor runs a session now.

It saves work, it guards nothing: what an attempt may write is decided by the compare-and-set in Postgres and by the ids
in the stream (docs/decisions/0003-what-the-lock-protects.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

from redis.asyncio import Redis

from backend.chat import keys
from backend.ids import ExecutorId, SessionId, TaskId

_SCRIPTS = Path(__file__).parent / "scripts"


class Holder(NamedTuple):
    """The value of a lock: who holds it, and for which task."""

    executor_id: ExecutorId
    task_id: TaskId

    def __str__(self) -> str:
        return f"{self.executor_id} {self.task_id}"

    @classmethod
    def parse(cls, value: bytes) -> Holder:
        executor_id, _, task_id = value.decode().partition(" ")
        return cls(ExecutorId(executor_id), TaskId(task_id))


class Locks:
    """Session locks of `ttl` seconds."""

    def __init__(self, redis: Redis, ttl: int) -> None:
        self._redis = redis
        self._milliseconds = ttl * 1000
        self._release = redis.register_script((_SCRIPTS / "lock_release.lua").read_text())
        self._refresh = redis.register_script((_SCRIPTS / "lock_refresh.lua").read_text())
        self._take_over = redis.register_script((_SCRIPTS / "lock_take_over.lua").read_text())

    async def acquire(self, session_id: SessionId, holder: Holder) -> Holder | None:
        """Takes the lock if it is free. Returns None when it is ours now, else who holds it."""
        value = str(holder)
        key = keys.lock_key(session_id)
        held = cast("bytes | None", await self._redis.set(key, value, nx=True, px=self._milliseconds, get=True))
        if held is None or held == value.encode():
            return None
        return Holder.parse(held)

    async def take_over(self, session_id: SessionId, dead: Holder, holder: Holder) -> bool:
        """Takes the lock from a holder that is known to be dead; False if somebody else has it by now."""
        return bool(
            await self._take_over(keys=[keys.lock_key(session_id)], args=[str(dead), str(holder), self._milliseconds])
        )

    async def refresh(self, held: Iterable[tuple[SessionId, Holder]]) -> None:
        """Extends every lock that is still ours, and takes those that vanished."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for session_id, holder in held:
                await self._refresh(
                    keys=[keys.lock_key(session_id)], args=[str(holder), self._milliseconds], client=pipeline
                )
            await pipeline.execute()

    async def release(self, session_id: SessionId, holder: Holder) -> None:
        """Frees the lock if it is ours; harmless otherwise."""
        await self._release(keys=[keys.lock_key(session_id)], args=[str(holder)])

"""Dead letters, as an operator sees them: what the queue of turns gave up on, and outcomes that were refused.

Executors take those of turns by themselves, and fail their tasks. So an operator sees them only while no executor runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis

from backend.chat.queue.completions import FIELD, dead_completions
from backend.chat.queue.redis_consumer import BODY, GROUP, REASON, QueueKeys


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A letter. `id` is unique among those of its `kind`, `turns` or `completions`. `body` is what was sent."""

    kind: str
    id: str
    reason: str
    body: bytes


class DeadLetters(Protocol):
    """The dead letters of one kind. The methods raise Unavailable or RedisError."""

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """Returns the oldest letters, and does not remove them."""

    async def settle(self, id: str, act: Callable[[DeadLetter], Awaitable[None]]) -> bool:
        """Runs `act` for the letter, then removes it. Returns False if there is none. If `act` fails, it stays."""


class RedisDeadLetters:
    """Dead letters in a Redis Stream."""

    def __init__(self, redis: Redis, kind: str, key: str, body: bytes, reason: bytes, group: str | None) -> None:
        self._redis = redis
        self._kind = kind
        self._key = key
        self._body = body
        self._reason = reason
        self._group = group

    @classmethod
    def of_completions(cls, redis: Redis) -> RedisDeadLetters:
        return cls(redis, "completions", dead_completions(redis), FIELD, b"reason", None)

    @classmethod
    def of_turns(cls, redis: Redis) -> RedisDeadLetters:
        return cls(redis, "turns", QueueKeys.of(redis).dead, BODY, REASON, GROUP)

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        rows: Any = await self._redis.xrange(self._key, count=limit)
        return [self._letter(id, fields) for id, fields in rows]

    async def settle(self, id: str, act: Callable[[DeadLetter], Awaitable[None]]) -> bool:
        rows: Any = await self._redis.xrange(self._key, id, id)
        if not rows:
            return False
        await act(self._letter(*rows[0]))
        if self._group is not None:  # an executor that has it pending does nothing more with it
            await self._redis.xack(self._key, self._group, id)
        await self._redis.xdel(self._key, id)
        return True

    def _letter(self, id: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
        reason = fields.get(self._reason, b"unknown").decode(errors="replace")
        return DeadLetter(self._kind, id.decode(), reason, fields.get(self._body, b""))

"""Checks the ends of streams as stored in Redis. Readers would not see faults there that the API corrects or omits."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence

from redis.asyncio import Redis

from backend.chat.keys import stream_key
from backend.chat.protocol.chunks import END
from backend.ids import SessionId, TaskId
from tests.faults.rig.snapshot import TaskRow
from tests.servers.redis import redis_client
from tests.speed import limit

PATIENCE = limit(30)


def fault_of(bodies: Sequence[bytes], status: str) -> str | None:
    """Describes what is wrong about the end of a stream with these entries whose task has that status, or returns
    None."""
    chunks = [json.loads(body) for body in bodies if not body.startswith(b"!")]
    ends = [chunk["messageMetadata"]["status"] for chunk in chunks if chunk["type"] == "finish"]
    if ends != [status]:
        return f"is {status}, and its stream ends with {ends}"
    if bodies.count(END) != 1 or bodies[-1] != END or chunks[-1]["type"] != "finish":
        return f"ends with {list(bodies[-3:])}"
    return None


async def false_ends(dsn: str, tasks: Iterable[TaskRow], *, patience: float = PATIENCE) -> list[str]:
    """Describes what is wrong about the ends of these tasks' streams. Waits up to `patience` seconds until nothing is,
    because a stream may end a moment after its row."""
    deadline = time.monotonic() + patience
    async with redis_client(dsn) as redis:
        while (found := await _false_now(redis, tasks)) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)  # between two checks of a bounded wait
    return found


async def _false_now(redis: Redis, tasks: Iterable[TaskRow]) -> list[str]:
    faults = [(task.id, fault_of(await _bodies(redis, task), task.status)) for task in tasks]
    return [f"{id} {fault}" for id, fault in faults if fault]


async def _bodies(redis: Redis, task: TaskRow) -> list[bytes]:
    rows = await redis.xrange(stream_key(SessionId(task.session), TaskId(task.id)))
    return [fields[b"d"] for _, fields in rows]

"""How a task's stream ends as it stands in Redis: readers are spared what the API mends or leaves out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence

from redis.asyncio import Redis

from backend.chat.chunks import END
from backend.chat.keys import stream_key
from backend.ids import SessionId, TaskId
from tests.faults.rig.snapshot import TaskRow
from tests.speed import limit

PATIENCE = limit(30)


def fault_of(bodies: Sequence[bytes], status: str) -> str | None:
    """What is wrong about the end of a stream with these entries, whose task has that status."""
    chunks = [json.loads(body) for body in bodies if not body.startswith(b"!")]
    ends = [chunk["messageMetadata"]["status"] for chunk in chunks if chunk["type"] == "finish"]
    if ends != [status]:
        return f"is {status}, and its stream says {ends}"
    if bodies.count(END) != 1 or bodies[-1] != END or chunks[-1]["type"] != "finish":
        return f"ends with {list(bodies[-3:])}"
    return None


async def false_ends(dsn: str, tasks: Iterable[TaskRow], *, patience: float = PATIENCE) -> list[str]:
    """What is wrong about the ends of these tasks' streams, after a while: some come a moment after the row's."""
    deadline = time.monotonic() + patience
    async with Redis.from_url(dsn) as redis:
        while (found := await _false_now(redis, tasks)) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)  # between two looks of a bounded wait
    return found


async def _false_now(redis: Redis, tasks: Iterable[TaskRow]) -> list[str]:
    faults = [(task.id, fault_of(await _bodies(redis, task), task.status)) for task in tasks]
    return [f"{id} {fault}" for id, fault in faults if fault]


async def _bodies(redis: Redis, task: TaskRow) -> list[bytes]:
    rows = await redis.xrange(stream_key(SessionId(task.session), TaskId(task.id)))
    return [fields[b"d"] for _, fields in rows]

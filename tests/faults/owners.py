"""Who works on a task now, as a process that can be struck."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.e2e.stack import Child, Stack
from tests.speed import limit

_READY = re.compile(r"executor (?:is ready|has started and waits)  .*executor_id=(\w+)")
WITHIN = limit(90)
_APART = re.compile(r"turn runs apart  .*executor_id=(\w+) pid=(\d+)")


ENDS = (
    "turn ended", "turn is another executor's by now", "turn handed back", "turn failed by a fault of ours",
)  # fmt: skip
"""What an executor logs when it has done with a turn."""


class TooLate(Exception):
    """A task ended before its owner could be struck."""


@asynccontextmanager
async def looking_into(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own to Postgres."""
    connection = await asyncpg.connect(dsn, timeout=limit(20), command_timeout=limit(20))
    try:
        yield connection
    finally:
        await connection.close(timeout=limit(20))


async def writes_no_more(executor: Child, task: str) -> None:
    """Waits until the executor has done with the task, one way or the other, or has died; the caller bounds it."""
    while executor.running:
        lines = [line for line in executor.log.read_text().splitlines() if task in line]
        if any(end in line for end in ENDS for line in lines):
            return
        await asyncio.sleep(0.05)  # between two looks of a bounded wait


async def owner_of(c: asyncpg.Connection, task: str) -> str | None:
    """The executor id of a running task's owner."""
    owner: str | None = await c.fetchval("SELECT owner FROM tasks WHERE id = $1", task)
    return owner


def executor_named(stack: Stack, executor_id: str) -> Child | None:
    """The process of ours with that executor id."""
    return next((child for child in stack.executors if executor_id in _READY.findall(child.log.read_text())), None)


def child_pid(stack: Stack, executor_id: str) -> int | None:
    """The process in which an executor runs a turn apart."""
    logs = (child.log.read_text() for child in stack.children if child.kind == "executor")
    apart = {name: int(pid) for log in logs for name, pid in _APART.findall(log)}
    return apart.get(executor_id)


async def kill_owner(stack: Stack, c: asyncpg.Connection, task: str, *, within: float = WITHIN) -> bool:
    """kill -9 to whoever owns the task, once somebody does: True if it was an executor, False for a child process.

    Raises TooLate when the task has ended."""
    async with asyncio.timeout(within):
        while True:
            owner = await owner_of(c, task)
            if owner is not None and (executor := executor_named(stack, owner)) is not None:
                executor.send(signal.SIGKILL)
                await executor.ended()
                return True
            if owner is not None and (pid := child_pid(stack, owner)) is not None:
                os.kill(pid, signal.SIGKILL)
                return False
            if owner is None and await c.fetchval("SELECT finished_at FROM tasks WHERE id = $1", task) is not None:
                raise TooLate(task)
            await asyncio.sleep(0.05)

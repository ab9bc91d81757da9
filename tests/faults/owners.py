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

_READY = re.compile(r"executor (?:is ready|has started and waits)  .*executor_id=(\w+)")
_APART = re.compile(r"turn runs apart  .*executor_id=(\w+) pid=(\d+)")


@asynccontextmanager
async def looking_into(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own to Postgres."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


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


async def kill_owner(stack: Stack, c: asyncpg.Connection, task: str, *, limit: float = 90) -> bool:
    """kill -9 to whoever owns the task, once somebody does: True if it was an executor, False for a child process."""
    async with asyncio.timeout(limit):
        while True:
            owner = await owner_of(c, task)
            if owner is not None and (executor := executor_named(stack, owner)) is not None:
                executor.send(signal.SIGKILL)
                await executor.ended()
                return True
            if owner is not None and (pid := child_pid(stack, owner)) is not None:
                os.kill(pid, signal.SIGKILL)
                return False
            await asyncio.sleep(0.05)

"""Finds the process that runs a task, so that a test can kill it."""

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
_IN_CHILD = re.compile(r"turn runs in a child process  .*executor_id=(\w+) pid=(\d+)")


ENDS = (
    "turn ended", "turn was taken over by another executor", "turn was handed back",
    "turn failed because of an internal error",
)  # fmt: skip
"""Log messages with which an executor ends its work on a turn."""


class TooLate(Exception):
    """Raised when a task ended before its owner could be killed."""


@asynccontextmanager
async def postgres_connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Opens a connection to Postgres for the test."""
    connection = await asyncpg.connect(dsn, timeout=limit(20), command_timeout=limit(20))
    try:
        yield connection
    finally:
        await connection.close(timeout=limit(20))


async def writes_no_more(executor: Child, task: str) -> None:
    """Waits until the executor has ended its work on the task, or has died. The caller bounds the wait."""
    while executor.running:
        lines = [line for line in executor.log.read_text().splitlines() if task in line]
        if any(end in line for end in ENDS for line in lines):
            return
        await asyncio.sleep(0.05)  # between two checks of a bounded wait


async def owner_of(c: asyncpg.Connection, task: str) -> str | None:
    """Returns the executor id of a running task's owner, or None."""
    owner: str | None = await c.fetchval("SELECT owner FROM tasks WHERE id = $1", task)
    return owner


def executor_named(stack: Stack, executor_id: str) -> Child | None:
    """Returns the running executor with that id, or None."""
    return next((child for child in stack.executors if executor_id in _READY.findall(child.log.read_text())), None)


def child_pid(stack: Stack, executor_id: str) -> int | None:
    """Returns the pid of the child process in which an executor with that id runs a turn, or None."""
    logs = (child.log.read_text() for child in stack.children if child.kind == "executor")
    children = {name: int(pid) for log in logs for name, pid in _IN_CHILD.findall(log)}
    return children.get(executor_id)


async def kill_owner(stack: Stack, c: asyncpg.Connection, task: str, *, within: float = WITHIN) -> bool:
    """Waits until a process owns the task, and kills it with SIGKILL. Returns True if it was an executor, False if it
    was a child process. Raises TooLate if the task has ended."""
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

"""A Node process beside the tests that takes jobs on its standard input and answers on its standard output."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from tests.servers.starting import Words
from tests.speed import limit

_LINE_LIMIT = 256 * 1024 * 1024
Peer = TypeVar("Peer")


@asynccontextmanager
async def node_process(
    folder: Path, *command: str, peer: Callable[[Process, Words], Peer], read: Callable[[Peer], Awaitable[None]]
) -> AsyncIterator[Peer]:
    """Starts `node COMMAND` in the folder and yields the `peer` that talks to it; `read` takes its answers until it has
    ended. It ends with the block: its input ends, and it is killed if it does not follow."""
    with Words() as words:
        process = await asyncio.create_subprocess_exec(
            "node", *command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=words, limit=_LINE_LIMIT
        )
        ours = peer(process, words)
        reading = asyncio.ensure_future(read(ours))
        try:
            yield ours
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), limit(20))
            except TimeoutError:
                process.kill()
                await process.wait()
            await reading

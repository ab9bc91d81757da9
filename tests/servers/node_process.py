"""Starts a Node process that reads jobs from its standard input and writes answers to its standard output."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from tests.servers.starting import OutputFile
from tests.speed import limit

_LINE_LIMIT = 256 * 1024 * 1024
Peer = TypeVar("Peer")


@asynccontextmanager
async def node_process(
    folder: Path, *command: str, peer: Callable[[Process, OutputFile], Peer], read: Callable[[Peer], Awaitable[None]]
) -> AsyncIterator[Peer]:
    """Starts `node COMMAND` in the folder and yields the `peer` that communicates with it. `read` reads its answers
    until it ends. Leaving the block closes its input, and kills it if it does not end then."""
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            "node", *command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=output_file, limit=_LINE_LIMIT
        )
        client = peer(process, output_file)
        reading = asyncio.ensure_future(read(client))
        try:
            yield client
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), limit(20))
            except TimeoutError:
                process.kill()
                await process.wait()
            await reading

"""A client that only reads: aiohttp and orjson, nothing else.

Usage: python -m bench.bare_client BASE_URL STREAMS SECONDS. It opens STREAMS streams at a server of chat completions
and reads every delta. When all have begun, it measures its own CPU time for SECONDS, prints the microseconds for each
delta, and leaves.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import aiohttp
import orjson
import uvloop

_BODY = {"model": "stamps", "stream": True, "messages": [{"role": "user", "content": "go on"}]}


class _Reading:
    """What all streams have read. `begun` is the number of streams with a delta."""

    begun = 0
    deltas = 0

    async def read(self, session: aiohttp.ClientSession, base: str) -> None:
        async with session.post(f"{base}/chat/completions", json=_BODY) as response:
            first = True
            async for line in response.content:
                if line.startswith(b"data: {"):
                    choices = orjson.loads(line[6:])["choices"]
                    if choices and choices[0]["delta"].get("content"):
                        self.deltas += 1
                        self.begun += first
                        first = False


async def main(base: str, streams: int, seconds: float) -> None:
    reading = _Reading()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        jobs = [asyncio.create_task(reading.read(session, base)) for _ in range(streams)]
        while not jobs[0].done() and reading.begun < streams:
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        seen, used = reading.deltas, time.process_time()
        await asyncio.sleep(seconds)
        print((time.process_time() - used) / (reading.deltas - seen) * 1e6, flush=True)
        os._exit(0)  # the streams need not end


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))

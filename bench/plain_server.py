"""A plain FastAPI server, with which the product is compared. It streams the same chunks from memory.

Usage: python -m bench.plain_server PORT
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.get("/plain")
async def plain(n: int) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for i in range(n):
            yield b'id: 1001-%d\ndata: {"type":"text-delta","id":"t1","delta":"%d "}\n\n' % (i + 1, i)
            await asyncio.sleep(0)
        yield b"data: [DONE]\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning")

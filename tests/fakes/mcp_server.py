"""`python -m tests.fakes.mcp_server [PORT]`: an MCP server made with the SDK, over stdio, or over HTTP at that port.

Its tools answer in all kinds, are slow, fail, or die during a call. `MARKS` names a file in which
`sleep` notes how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel

SAYS = "a word on standard error"
server = MCPServer("fake", log_level="ERROR")
crowds: list[int] = []


class Weather(BaseModel):
    place: str
    degrees: float


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def weather(place: str) -> Weather:
    """Tells the weather."""
    return Weather(place=place, degrees=21.5)


@server.tool(structured_output=False)
def greet(name: str) -> str:
    """Returns a greeting, as text only."""
    return f"Hello, {name}!"


@server.tool(structured_output=False)
def paint(size: int) -> list[Any]:
    """Returns a picture of `size` bytes."""
    return ["a picture", Image(data=bytes(size), format="png")]


@server.tool(structured_output=False)
def write(chars: int) -> str:
    """Returns `chars` characters of text."""
    return "x" * chars


@server.tool()
def refuse() -> str:
    """Fails."""
    raise ToolError("I will not")


@server.tool()
def environment() -> dict[str, str]:
    """Returns the environment of this process."""
    return dict(os.environ)


@server.tool()
def pid() -> int:
    """Returns the id of this process."""
    return os.getpid()


@server.tool()
async def sleep(seconds: float) -> str:
    """Waits."""
    note("begun")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note("slept")
    return "slept"


@server.tool()
async def crowd(size: int) -> int:
    """Returns the number of its calls under way. Ends a moment after there were so many at once, or after a minute."""
    crowds.append(crowds[-1] + 1 if crowds else 1)
    here = crowds[-1]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while max(crowds) < size:
                await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    crowds.append(crowds[-1] - 1)
    return here


@server.tool()
def die() -> str:
    """Ends the process during the call."""
    os._exit(7)


@server.tool(name="odd.name with spaces")
def odd() -> str:
    """Has a name that no provider takes."""
    return "odd"


def note(word: str) -> None:
    if "MARKS" in os.environ:
        with Path(os.environ["MARKS"]).open("a") as marks:
            marks.write(f"{word}\n")


if __name__ == "__main__":
    print(SAYS, os.environ.get("TOKEN", ""), file=sys.stderr, flush=True)
    if sys.argv[1:]:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        print("a banner that is no JSON", flush=True)
        server.run()

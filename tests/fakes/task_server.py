"""`python task_server.py [fork]`: an MCP server on fastmcp 4 whose calls become tasks (the extension of 2026-07-28).

It runs with the interpreter of `tests.servers.mcp_install`, so it imports nothing from here. `MARKS` names a file in
which it notes what happens.

It serves standard input and output. With `fork`, it forks a server over HTTP for each line `PORT MARKS` of its standard
input, and prints the id of that process. All of them end when the input does. The imports take two seconds of CPU.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastmcp import Context, FastMCP
from fastmcp.dependencies import Progress
from fastmcp.exceptions import ToolError
from fastmcp.utilities.tasks import TaskConfig
from fastmcp_tasks import TasksExtension
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult

OFTEN = TaskConfig(poll_interval=timedelta(seconds=1))  # instead of 5 s; our executor asks no more often
FORM = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
server = FastMCP("tasks")
server.add_extension(TasksExtension())


@server.tool(task=OFTEN)
async def work(seconds: float, progress: Progress = Progress()) -> str:
    """Works, in ten steps."""
    note("begun")
    try:
        for step in range(10):
            await progress.set_message(f"step {step}")
            await asyncio.sleep(seconds / 10)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note("worked")
    return "worked"


@server.tool(task=OFTEN)
async def hold(progress: Progress = Progress()) -> str:
    """Works until there is a file whose name is that of MARKS with `.go` behind it."""
    note("begun")
    step = 0
    while not Path(f"{os.environ['MARKS']}.go").exists():
        step += 1
        await progress.set_message(f"step {step}")
        await asyncio.sleep(0.2)
    note("worked")
    return "worked"


@server.tool(task=OFTEN)
async def fail(seconds: float) -> str:
    """Fails after a while."""
    await asyncio.sleep(seconds)
    raise ToolError("I will not")


@server.tool(task=OFTEN)
async def book(ctx: Context) -> str | InputRequiredResult:
    """Books a trip, whose city the user is asked while the task waits."""
    given: Any = ctx.input_responses
    if given is None:
        asked = ElicitRequestFormParams(message="Where do you go?", requested_schema=FORM)
        return InputRequiredResult(input_requests={"trip": ElicitRequest(params=asked)})
    answer = given["trip"]
    assert isinstance(answer, ElicitResult)
    return f"{answer.action} {answer.content or ''}".strip()


@server.tool
def ready() -> str:
    """Answers at once."""
    return "ready"


def note(word: str) -> None:
    if "MARKS" in os.environ:
        with Path(os.environ["MARKS"]).open("a") as marks:
            marks.write(f"{word}\n")


def fork_servers() -> None:
    children = []
    for line in sys.stdin:
        port, marks = line.split(maxsplit=1)
        child = os.fork()
        if child == 0:
            os.environ["MARKS"] = marks.strip()
            server.run(transport="http", port=int(port), show_banner=False, log_level="ERROR")
            return
        children.append(child)
        print(child, flush=True)
    for child in children:  # until here nobody has waited for them, so that their ids are still theirs
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    if sys.argv[1:] == ["fork"]:
        fork_servers()
    else:
        server.run(show_banner=False, log_level="ERROR")

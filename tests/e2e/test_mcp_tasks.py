"""Calls that become tasks at their MCP server: their results reach the conversation once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.e2e.chat_api import asked, ending_of, followed, history_of, open_session
from tests.e2e.stack import Servers, Stack, new_user
from tests.e2e.test_mcp_turns import outputs_of, plain_servers, stack_with, until_there
from tests.fakes.running import words_in
from tests.servers.mcp_install import (
    EVERYTHING_HINT,
    FASTMCP_HINT,
    find_or_install_everything,
    find_or_install_fastmcp,
)
from tests.servers.ports import free_port
from tests.servers.process_tree import all_gone
from tests.servers.starting import OutputFile, first_line, listens, until_ready
from tests.speed import limit

__all__ = ["plain_servers"]
LIMIT = limit(60)
SERVER = str(ROOT / "tests" / "fakes" / "task_server.py")
"""A turn waits ten seconds for a task before it goes on. So a test whose point is not that wait names the tool in
`operations`, whose calls are made beside the turn."""


class TaskServers:
    """Forks servers of fastmcp from one that has imported it. `python` is the interpreter that has it."""

    def __init__(self, python: str, process: asyncio.subprocess.Process, output_file: OutputFile) -> None:
        self.python = python
        self._process = process
        self._output_file = output_file

    @asynccontextmanager
    async def start(self, port: int, marks: Path) -> AsyncIterator[int]:
        """Starts a server over HTTP and yields its pid. Kills it when the block is left."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{port} {marks}\n".encode())
        pid = int(await first_line(self._process, "fastmcp", self._output_file.tail))
        try:
            await until_ready(self._process, "a server of fastmcp", lambda: listens(port), self._output_file.tail)
            yield pid
        finally:
            await kill(pid)


async def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)  # it may be a zombie, because the fork server waits for all of them at its end
    await all_gone([pid], LIMIT)


@pytest.fixture(scope="module")
async def fastmcp() -> AsyncIterator[TaskServers]:
    python = await asyncio.to_thread(find_or_install_fastmcp)
    if python is None:
        pytest.skip(FASTMCP_HINT)
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *(str(python), SERVER, "fork"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=output_file,
            env={"PATH": os.environ["PATH"]},
        )
        try:
            yield TaskServers(str(python), process, output_file)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await asyncio.wait_for(process.wait(), LIMIT)


@dataclass
class Rig:
    stack: Stack
    client: httpx.AsyncClient
    marks: Path
    port: int = 0
    server: int = 0
    """The pid of the server."""

    async def begun(self, call: str) -> tuple[str, dict[str, Any]]:
        """Has a turn make the call. Returns the session, and what the turn was told."""
        session = await open_session(self.client)
        async with asked(self.client, session, f"/tool {call}") as stream:
            events = await asyncio.wait_for(stream.rest(), LIMIT)
        (told,) = [e.chunk["output"] for e in events if e.chunk["type"] == "tool-output-available"]
        assert told["type"] == "operation_started", told
        return session, told

    async def output_of(self, call: str) -> dict[str, Any]:
        """Has a turn make the call. Returns its output, whether the turn waits for it or not."""
        session = await open_session(self.client)
        async with asked(self.client, session, f"/tool {call}") as stream:
            events = await asyncio.wait_for(stream.rest(), LIMIT)
        (told,) = [e.chunk["output"] for e in events if e.chunk["type"] == "tool-output-available"]
        return await self.result(session, told["task_id"]) if told["type"] == "operation_started" else dict(told)

    def let_go(self) -> None:
        """Lets the tool `hold` end."""
        Path(f"{self.marks}.go").touch()

    async def until_marked(self, *words: str) -> None:
        async with asyncio.timeout(LIMIT):
            while tuple(words_in(self.marks)) != words:
                await asyncio.sleep(0.05)  # between two looks of a bounded wait

    async def operations_in(self, session: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.client.get(f"/api/chat/sessions/{session}")).json()["operations"]
        return found

    async def until(self, so: Callable[[list[dict[str, Any]]], bool], session: str) -> list[dict[str, Any]]:
        """Waits until the session's operations are as wanted, and returns them."""
        async with asyncio.timeout(LIMIT):
            while not so(found := await self.operations_in(session)):
                await asyncio.sleep(0.1)  # between two looks of a bounded wait
        return found

    async def question_in(self, session: str) -> dict[str, Any]:
        found = await self.until(lambda found: any("asks" in one for one in found), session)
        return next(one for one in found if "asks" in one)

    async def answer(self, question: dict[str, Any], **given: str) -> None:
        path = f"/api/chat/operations/{question['operation_id']}/answer"
        assert (await self.client.post(path, json={"answer": given})).status_code == 200

    async def result(self, session: str, task: str) -> dict[str, Any]:
        """Waits for the continuation. Returns the output that the call has in the history."""
        async with followed(self.client, task) as stream:
            events = await asyncio.wait_for(stream.rest(), LIMIT)
        assert ending_of(events) == "completed"
        return await self.output_in(session)

    async def output_in(self, session: str) -> dict[str, Any]:
        history = await history_of(self.client, session)
        part = next(p for p in history[1]["parts"] if p["type"] == "dynamic-tool")
        return dict(part["output"])


@asynccontextmanager
async def rig(
    servers: Servers, folder: Path, fastmcp: TaskServers, operations: Sequence[str] = (), **settings: str
) -> AsyncIterator[Rig]:
    port, marks = free_port(), folder / "marks"
    async with fastmcp.start(port, marks) as server:
        mcp = {"one": {"url": f"http://127.0.0.1:{port}/mcp", "operations": operations}}
        async with stack_with(servers, folder, mcp, **settings) as stack, stack.client(new_user()) as client:
            await until_there(client, "one_ready")
            yield Rig(stack, client, marks, port, server)


async def test_a_task_goes_on_when_its_executors_are_killed(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    """The first one dies while its turn waits for the task, the second while it asks, the third with the result."""
    async with rig(plain_servers, tmp_path, fastmcp) as one:
        session = await open_session(one.client)
        async with asked(one.client, session, "/tool one_hold") as stream:
            await one.until_marked("begun")
            await one.until(bool, session)
            first = one.stack.executors[0]
            second = await one.stack.start_executor()
            first.send(signal.SIGKILL)
            events = await asyncio.wait_for(stream.rest(), LIMIT)
        assert ending_of(events) == "completed"
        (operation,) = await one.until(lambda found: found[0].get("progress") is not None, session)
        third = await one.stack.start_executor(FAILPOINTS="after_remote_task=1:kill")
        second.send(signal.SIGKILL)
        one.let_go()
        assert await third.ended(LIMIT) == -signal.SIGKILL
        await one.stack.start_executor()
        done = await one.result(session, operation["task_id"])
        assert (done["type"], done["outputs"]) == ("block_output", {"result": "worked"})
        assert words_in(one.marks) == ["begun", "worked"]
        roles = [message["role"] for message in await history_of(one.client, session)]
        assert roles == ["user", "assistant", "assistant"]
        assert await one.operations_in(session) == []


async def test_a_call_beside_its_turn_that_becomes_a_task_goes_on_when_its_executor_is_killed(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    async with rig(plain_servers, tmp_path, fastmcp, operations=["hold"]) as one:
        session, told = await one.begun("one_hold")
        await one.until(lambda found: found[0].get("progress") is not None, session)
        (executor,) = one.stack.executors
        await one.stack.start_executor()
        executor.send(signal.SIGKILL)
        one.let_go()
        done = await one.result(session, told["task_id"])
        assert (done["type"], done["outputs"]) == ("block_output", {"result": "worked"})
        assert words_in(one.marks) == ["begun", "worked"]


async def test_a_task_that_ends_soon_has_its_result_in_the_turn(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    async with rig(plain_servers, tmp_path, fastmcp) as one:
        done, failed = await outputs_of(one.client, 'one_work {"seconds": 0.2}', 'one_fail {"seconds": 0.1}')
        assert (done["type"], done["outputs"]) == ("block_output", {"result": "worked"})
        assert (failed["type"], failed["error"]) == ("error", "tool_failed")
        assert "I will not" in failed["message"]


@pytest.mark.parametrize("how", ["task", "session", "overdue"])
async def test_the_server_is_told_once_that_an_operation_has_ended(
    how: str, plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    settings = {"OPERATION_TIMEOUT": "5"} if how == "overdue" else {}
    async with rig(plain_servers, tmp_path, fastmcp, operations=["work"], **settings) as one:
        session, told = await one.begun('one_work {"seconds": 600}')
        if how == "task":
            cancelled = await one.client.post(f"/api/chat/tasks/{told['task_id']}/cancel")
            assert cancelled.json() == {"cancelled": True, "task_id": told["task_id"]}
        elif how == "session":
            assert (await one.client.delete(f"/api/chat/sessions/{session}")).status_code in (200, 204)
        await one.until_marked("begun", "cancelled")
        if how == "overdue":
            assert (await one.result(session, told["task_id"]))["error"] == "operation_timeout"


async def test_a_turn_that_is_cancelled_while_it_waits_for_a_task_has_it_stopped(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    async with rig(plain_servers, tmp_path, fastmcp) as one:
        session = await open_session(one.client)
        async with asked(one.client, session, '/tool one_work {"seconds": 600}') as stream:
            await one.until_marked("begun")
            assert (await one.client.post(f"/api/chat/sessions/{session}/cancel")).json()["cancelled"]
            assert ending_of(await asyncio.wait_for(stream.rest(), LIMIT)) == "cancelled"
        await one.until_marked("begun", "cancelled")


async def test_a_task_that_finds_no_room_as_an_operation_is_stopped(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    async with rig(plain_servers, tmp_path, fastmcp, operations=["hold"], MAX_OPERATIONS="1") as one:
        await one.begun("one_hold")
        await one.until_marked("begun")
        (refused,) = await outputs_of(one.client, 'one_work {"seconds": 600}')
        assert refused["error"] == "too_many_operations"
        await one.until_marked("begun", "begun", "cancelled")


async def test_a_server_that_has_lost_a_task_ends_its_operation(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    async with rig(plain_servers, tmp_path, fastmcp, operations=["work"]) as one:
        session, told = await one.begun('one_work {"seconds": 600}')
        await kill(one.server)
        async with fastmcp.start(one.port, one.marks):
            done = await one.result(session, told["task_id"])
        assert (done["type"], done["error"]) == ("error", "task_lost")


async def test_a_task_asks_the_user_while_it_waits(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    async with rig(plain_servers, tmp_path, fastmcp, ASK_USER="always") as one:
        session, told = await one.begun("one_book")
        question = await one.question_in(session)
        assert question["asks"]["text"] == "Where do you go?"
        await one.answer(question, city="Oslo")
        done = await one.result(session, told["task_id"])
        assert done["outputs"] == {"result": "accept {'city': 'Oslo'}"}


async def test_a_program_loses_its_tasks_when_its_executor_dies(
    plain_servers: Servers, tmp_path: Path, fastmcp: TaskServers
) -> None:
    marks = tmp_path / "marks"
    mcp = {"one": {"command": fastmcp.python, "args": [SERVER], "env": {"MARKS": str(marks)}, "operations": ["work"]}}
    async with stack_with(plain_servers, tmp_path, mcp) as stack, stack.client(new_user()) as client:
        await until_there(client, "one_ready")
        one = Rig(stack, client, marks)
        done = await one.output_of('one_work {"seconds": 0.5}')
        assert done["outputs"] == {"result": "worked"}
        session, told = await one.begun('one_work {"seconds": 600}')
        (executor,) = stack.executors
        await stack.start_executor()
        executor.send(signal.SIGKILL)
        ended = await one.result(session, told["task_id"])
        assert ended["error"] == "interrupted_unknown_effect"


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_tool_that_must_run_as_a_task_does(transport: str, plain_servers: Servers, tmp_path: Path) -> None:
    """`simulate-research-query` of server-everything has `taskSupport: required` (2025-11-25), takes four seconds."""
    program = await asyncio.to_thread(find_or_install_everything)
    if program is None:
        pytest.skip(EVERYTHING_HINT)
    port = free_port()
    served: AbstractAsyncContextManager[None] = nothing()
    mcp: dict[str, Any] = {
        "all": {"command": "node", "args": [str(program), "stdio"], "operations": ["simulate-research-query"]}
    }
    if transport == "http":
        served, mcp = everything(program, port), {"all": {"url": f"http://127.0.0.1:{port}/mcp"}}
    async with (
        served,
        stack_with(plain_servers, tmp_path, mcp, ASK_USER="always") as stack,
        stack.client(new_user()) as client,
    ):
        await until_there(client, 'all_echo {"message": "hi"}')
        one = Rig(stack, client, tmp_path)
        done = await one.output_of('all_simulate-research-query {"topic": "tea"}')
        assert "Research Report: tea" in str(done["outputs"])
        await stack.start_executor()  # whose own session at the server knows nothing of the task
        session, told = await one.begun('all_simulate-research-query {"topic": "tea", "ambiguous": true}')
        await one.answer(await one.question_in(session), interpretation="historical")
        assert "tea (historical)" in str((await one.result(session, told["task_id"]))["outputs"])


@asynccontextmanager
async def everything(program: Path, port: int) -> AsyncIterator[None]:
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *("node", program, "streamableHttp"),
            stdout=output_file, stderr=output_file, env={**os.environ, "PORT": str(port)},
        )  # fmt: skip
        try:
            await until_ready(process, "server-everything", lambda: listens(port), output_file.tail)
            yield
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield

"""Turns that use tools of MCP servers, in a whole service: what a server does costs its tools, never the turn."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.e2e.chat_api import asked, ending_of, followed, history_of, open_session, task_of
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.fakes.careless_mcp_server import TOOLS
from tests.fakes.running import words_in
from tests.plain_http import http_client
from tests.servers.ports import free_port
from tests.servers.process_tree import all_gone, descendants
from tests.speed import limit

LIMIT = limit(30)
SECRET = "s3cr3t-of-the-file-0123456789"
HERE = {"PYTHONPATH": str(ROOT), "TOKEN": SECRET}
FAKE = {"command": sys.executable, "args": ["-m", "tests.fakes.mcp_server"], "env": HERE}
PLAIN = {
    "command": sys.executable,
    "args": ["-m", "tests.fakes.careless_mcp_server"],
    "env": {**HERE, "TOOLS": json.dumps(TOOLS)},
}
"""A server without the SDK, for tests of its life, not of its answers."""
THREE = {
    "healthy": {**FAKE, "tools": ["add", "weather", "refuse"]},
    "slow": {**PLAIN, "tools": ["wait"], "timeout": limit(2)},
    "dying": {**PLAIN, "tools": ["die", "pid"]},
}


@pytest.fixture
def plain_servers(postgres_dsn: str, redis_dsn: str) -> Servers:
    return Servers(postgres_dsn, redis_dsn)


@asynccontextmanager
async def stack_with(servers: Servers, folder: Path, mcp: Mapping[str, Any], **settings: str) -> AsyncIterator[Stack]:
    file = folder / "mcp.json"
    file.write_text(json.dumps({"mcpServers": mcp}))
    async with open_stack(servers, folder, MCP_SERVERS_FILE=str(file), **settings) as stack:
        yield stack


async def outputs_of(client: httpx.AsyncClient, *calls: str) -> list[dict[str, Any]]:
    """Returns the answers of tools that one turn calls side by side. Fails if the turn does not complete."""
    session = await open_session(client)
    async with asked(client, session, "\n".join(f"/tool {call}" for call in calls)) as stream:
        events = await asyncio.wait_for(stream.rest(), LIMIT)
    assert ending_of(events) == "completed"
    parts = [part for part in (await history_of(client, session))[-1]["parts"] if part["type"] == "dynamic-tool"]
    assert len(parts) == len(calls)
    return [part["output"] for part in parts]


async def until_there(client: httpx.AsyncClient, call: str) -> dict[str, Any]:
    """Asks, turn after turn, until the tool answers."""
    async with asyncio.timeout(LIMIT):
        while (output := (await outputs_of(client, call))[0])["type"] == "error":
            assert output["error"] == "tool_unavailable"
            await asyncio.sleep(0.1)  # between two questions of a bounded wait
    return output


async def test_one_healthy_one_slow_and_one_dying_server_in_one_step(plain_servers: Servers, tmp_path: Path) -> None:
    async with stack_with(plain_servers, tmp_path, THREE) as stack, stack.client(new_user()) as client:
        for call in ('healthy_add {"a": 1, "b": 1}', "dying_pid", 'slow_wait {"seconds": 0}'):
            await until_there(client, call)
        before = await until_there(client, "dying_pid")
        healthy, weather, failed, slow, dying = await outputs_of(
            client, 'healthy_add {"a": 2, "b": 40}', 'healthy_weather {"place": "here"}', "healthy_refuse",
            'slow_wait {"seconds": 600}', "dying_die",
        )  # fmt: skip
        assert (healthy["type"], healthy["block_id"]) == ("block_output", "healthy.add")
        assert healthy["outputs"] == {"result": 42}
        assert weather["outputs"] == {"place": "here", "degrees": 21.5}
        assert (failed["error"], slow["error"]) == ("tool_failed", "timeout")
        assert dying["error"] == "interrupted_unknown_effect"
        waited = [{"type": "text", "text": '{"seconds": 0}'}]
        after = await until_there(client, "dying_pid")
        assert before["outputs"] != after["outputs"]
        assert (await outputs_of(client, 'slow_wait {"seconds": 0}'))[0]["outputs"] == waited
        log = stack.executors[0].log.read_text()
        assert SECRET not in log
        assert "Traceback" not in log


async def test_an_executor_starts_and_answers_beside_servers_that_do_not_exist(
    plain_servers: Servers, tmp_path: Path
) -> None:
    away = {
        "none": {"command": "/nowhere/at/all", "env": HERE},
        "nobody": {"url": f"http://127.0.0.1:{free_port()}/mcp?key={SECRET}"},
    }
    async with stack_with(plain_servers, tmp_path, away) as stack, stack.client(new_user()) as client:
        none, nobody = await outputs_of(client, "none_tool", "nobody_tool")
        assert (none["error"], nobody["error"]) == ("tool_unavailable", "tool_unavailable")
        executor = stack.executors[0]
        async with http_client(base_url=executor.url, timeout=LIMIT) as http:
            report = (await http.get("/health")).json()["mcp_servers"]
            metrics = (await http.get("/metrics")).text
        assert report["none"] == {"connected": False, "tools": 0, "why": "its command cannot be run"}
        assert report["nobody"] == {"connected": False, "tools": 0, "why": "Connection refused"}
        assert 'mcp_server_up{server="nobody"} 0.0' in metrics
        assert re.search(r'mcp_server_failures_total\{reason="exited",server="none"\} [1-9]', metrics)
        log = executor.log.read_text()
        assert "an MCP server is unavailable  server=none error=its command cannot be run" in log
        assert "an MCP server is unavailable  server=nobody error=Connection refused" in log
        assert SECRET not in log


async def test_a_tool_that_is_an_operation_ends_after_its_turn_also_when_its_executor_dies(
    plain_servers: Servers, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    mcp = {"one": {**FAKE, "env": {**HERE, "MARKS": str(marks)}, "operations": ["sleep", "refuse"]}}
    async with stack_with(plain_servers, tmp_path, mcp) as stack, stack.client(new_user()) as client:
        await until_there(client, "one_pid")

        async def begun(call: str) -> tuple[str, str]:
            session = await open_session(client)
            async with asked(client, session, f"/tool {call}") as stream:
                events = await asyncio.wait_for(stream.rest(), LIMIT)
            (told,) = [e.chunk["output"] for e in events if e.chunk["type"] == "tool-output-available"]
            assert told["type"] == "operation_started"
            return session, told["task_id"]

        async def result(session: str, task: str) -> dict[str, Any]:
            async with followed(client, task) as stream:
                events = await asyncio.wait_for(stream.rest(), LIMIT)
            assert ending_of(events) == "completed"
            part = next(p for p in (await history_of(client, session))[1]["parts"] if p["type"] == "dynamic-tool")
            output: dict[str, Any] = part["output"]
            return output

        done = await result(*await begun('one_sleep {"seconds": 0.5}'))
        assert (done["type"], done["outputs"]) == ("block_output", {"result": "slept"})
        refused = await result(*await begun("one_refuse"))
        assert (refused["type"], refused["error"]) == ("error", "tool_failed")
        _, task = await begun('one_sleep {"seconds": 700}')
        cancelled = await client.post(f"/api/chat/tasks/{task}/cancel")
        assert cancelled.json() == {"cancelled": True, "task_id": task}
        async with asyncio.timeout(LIMIT):
            while "cancelled" not in words_in(marks):
                await asyncio.sleep(0.05)  # between two looks of a bounded wait
        session, task = await begun('one_sleep {"seconds": 600}')
        (executor,) = stack.executors
        await stack.start_executor()
        executor.send(signal.SIGKILL)
        assert (await result(session, task))["error"] == "interrupted_unknown_effect"


async def test_the_progress_of_an_operation_reaches_its_stream(plain_servers: Servers, tmp_path: Path) -> None:
    careless = {"command": sys.executable, "args": ["-m", "tests.fakes.careless_mcp_server"], "env": HERE}
    mcp = {"one": {**careless, "operations": ["wait"]}}
    async with stack_with(plain_servers, tmp_path, mcp) as stack, stack.client(new_user()) as client:
        await until_there(client, 'one_say {"text": "{\\"id\\": @ID@, \\"result\\": {\\"content\\": []}}"}')
        session = await open_session(client)
        async with asked(client, session, f'/tool one_wait {{"steps": 3, "pause": {limit(1.5)}}}') as stream:
            events = await asyncio.wait_for(stream.rest(), LIMIT)
        (told,) = [e.chunk["output"] for e in events if e.chunk["type"] == "tool-output-available"]
        async with followed(client, told["task_id"]) as stream:
            events = await asyncio.wait_for(stream.rest(), LIMIT)
        assert ending_of(events) == "completed"
        shown = [e.chunk["data"] for e in events if e.chunk["type"] == "data-progress"]
        assert shown[-1]["message"] == "step 3"


async def test_cancelling_a_turn_cancels_its_call(plain_servers: Servers, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    mcp = {"one": {**FAKE, "env": {**HERE, "MARKS": str(marks)}}}
    async with stack_with(plain_servers, tmp_path, mcp) as stack, stack.client(new_user()) as client:
        await until_there(client, "one_pid")
        session = await open_session(client)
        async with asked(client, session, '/tool one_sleep {"seconds": 600}') as stream:
            async with asyncio.timeout(LIMIT):
                while not words_in(marks):
                    await asyncio.sleep(0.02)  # between two looks of a bounded wait
            cancelled = (await client.post(f"/api/chat/sessions/{session}/cancel")).json()
            assert (cancelled["cancelled"], cancelled.get("reason")) == (True, None)
            assert ending_of(await stream.rest()) == "cancelled"
            assert (await task_of(client, stream.task_id))["status"] == "cancelled"
        async with asyncio.timeout(LIMIT):
            while words_in(marks) != ["begun", "cancelled"]:
                await asyncio.sleep(0.02)  # between two looks of a bounded wait


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_server_outlives_its_executor(number: signal.Signals, plain_servers: Servers, tmp_path: Path) -> None:
    """The older server does not end with its input, and has a child that has no input at all."""
    older = {"command": sys.executable, "args": ["-m", "tests.fakes.older_mcp_server", "986"], "env": HERE}
    mcp = {"older": older, "one": PLAIN}
    async with stack_with(plain_servers, tmp_path, mcp) as stack, stack.client(new_user()) as client:
        await until_there(client, "older_grow")
        await until_there(client, "one_pid")
        executor = stack.executors[0]
        servers = descendants(executor.process.pid)
        assert len(servers) >= 5  # two guards, two servers, and the child of one
        executor.send(number)
        await executor.ended()
        await all_gone(servers, LIMIT)


async def test_a_wrong_file_stops_the_executor_in_one_line(plain_servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"x": {"command": SECRET, "timeout": -1}}}))
    async with open_stack(plain_servers, tmp_path, executors=0) as stack:
        executor = await stack.spawn("executor", MCP_SERVERS_FILE=str(file))
        assert await executor.ended(LIMIT) == 1
        (line,) = executor.log.read_text().splitlines()
        assert line.startswith(f"executor: MCP_SERVERS_FILE: {file}, mcpServers.x.timeout: ")
        assert SECRET not in line


async def test_a_newer_question_survives_its_executor_and_an_older_one_ends_with_it(
    plain_servers: Servers, tmp_path: Path
) -> None:
    """A question of the older protocol waits with its call; one of the newer protocol does not need the executor."""
    marks = tmp_path / "marks"
    ask = {"command": sys.executable, "args": ["-m", "tests.fakes.asking_mcp_server"]}
    mcp = {
        "old": {**ask, "env": {**HERE, "OLDER": "1", "MARKS": str(marks)}},
        "new": {**ask, "env": {**HERE, "MARKS": str(marks)}},
    }
    settings = {"ASK_USER": "always", "SHUTDOWN_GRACE": str(limit(10))}
    async with stack_with(plain_servers, tmp_path, mcp, **settings) as stack, stack.client(new_user()) as client:

        async def question_in(session: str) -> dict[str, Any]:
            async with asyncio.timeout(LIMIT):
                while not (found := (await client.get(f"/api/chat/sessions/{session}")).json()["operations"]):
                    await asyncio.sleep(0.05)  # between two looks of a bounded wait
            (one,) = found
            return dict(one)

        async def answered(question: dict[str, Any]) -> httpx.Response:
            body = {"answer": {"city": "Oslo"}}
            return await client.post(f"/api/chat/operations/{question['operation_id']}/answer", json=body)

        async def output_in(session: str) -> dict[str, Any]:
            parts = [part for part in (await history_of(client, session))[1]["parts"] if part["type"] == "dynamic-tool"]
            return dict(parts[0]["output"] if "output" in parts[0] else {"error": parts[0]["errorText"]})

        for server in ("old", "new"):
            await until_there(client, f"{server}_ready")
        live, durable, late = [await open_session(client) for _ in range(3)]
        async with asked(client, durable, '/tool new_reserve {"days": 1}') as stream:
            await asyncio.wait_for(stream.rest(), LIMIT)
        kept = await question_in(durable)
        async with asked(client, live, '/tool old_book {"days": 1}') as stream:
            open_ = await question_in(live)
            stack.executors[0].send(signal.SIGKILL)
            second = await stack.start_executor()
            assert ending_of(await asyncio.wait_for(stream.rest(), LIMIT)) == "completed"
        assert "unknown" in str(await output_in(live))
        async with asyncio.timeout(LIMIT):
            while (await client.get(f"/api/chat/sessions/{live}")).json()["operations"]:
                await asyncio.sleep(0.05)  # between two looks of a bounded wait
        assert (await answered(open_)).status_code == 410
        assert (await question_in(durable))["operation_id"] == kept["operation_id"]
        for server in ("old", "new"):
            await until_there(client, f"{server}_ready")
        assert (await answered(kept)).status_code == 200
        async with followed(client, kept["task_id"]) as stream:
            assert ending_of(await asyncio.wait_for(stream.rest(), LIMIT)) == "completed"
        assert "accept {'city': 'Oslo'}" in str(await output_in(durable))
        async with asked(client, late, '/tool old_book {"days": 2}') as stream:
            await question_in(late)
            second.send(signal.SIGTERM)
            assert ending_of(await asyncio.wait_for(stream.rest(), LIMIT)) == "completed"
        output = await output_in(late)
        assert "cancel" in str(output["outputs"])
        assert "went on without" in output["message"]

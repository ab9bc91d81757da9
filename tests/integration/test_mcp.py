"""MCP servers as sources of tools: real ones, over stdio and streamable HTTP, that answer, fail, are slow and die."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from backend.chat.protocol.tool_responses import BlockOutput, ErrorResponse
from backend.errors import ConfigError
from backend.ids import SessionId
from backend.logs import configure_logs
from tests.fakes.careless_mcp_server import TOOLS
from tests.fakes.mcp_server import SAYS
from tests.fakes.running import words_in
from tests.integration.mcp_bench import FAKE, HERE, LIMIT, OLDER, PLAIN, SESSION, Bench, bench, http_server
from tests.servers.ports import free_port
from tests.servers.process_tree import descendants, running
from tests.speed import limit

SECRET = "s3cr3t-of-the-file-0123456789"


@pytest.fixture(scope="module", params=["stdio", "http"])
async def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A server named `one` over either transport. Tests share it, because a server of the SDK takes a second of CPU to
    start."""
    async with _server_over(request.param, tmp_path_factory.mktemp("one")) as there:
        yield there


@pytest.fixture(params=["stdio", "http"])
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A server named `one` over either transport, for a test that ends it or reads its marks."""
    async with _server_over(request.param, tmp_path) as there:
        yield there


@asynccontextmanager
async def _server_over(transport: str, folder: Path) -> AsyncIterator[Bench]:
    marks = str(folder / "marks")
    async with AsyncExitStack() as stack:
        entry: dict[str, Any] = {**FAKE, "env": {**HERE, "MARKS": marks}}
        if transport == "http":
            port = free_port()
            await stack.enter_async_context(http_server(port, MARKS=marks))
            entry = {"url": f"http://127.0.0.1:{port}/mcp"}
        there = await stack.enter_async_context(bench(folder, {"one": entry}))
        await there.until(lambda: bool(there.offered))
        yield there


async def test_the_tools_of_a_server_are_offered_with_its_schemas_and_answer(one: Bench) -> None:
    specs = {spec.name: spec for spec in one.toolbox.specs}
    assert specs["one_add"].description == "Adds two numbers."
    assert specs["one_add"].parameters["properties"]["a"]["type"] == "integer"
    assert specs["one_add"].parameters["required"] == ["a", "b"]
    assert await one.run("one_weather", place="here") == BlockOutput(
        message="one.weather has answered.",
        session_id=SESSION,
        block_id="one.weather",
        block_name="weather",
        outputs={"place": "here", "degrees": 21.5},
    )
    (told,) = await one.step(("one_add", {"a": 2, "b": 40}))
    assert (told["type"], told["block_id"], told["outputs"]) == ("block_output", "one.add", {"result": 42})


async def test_outputs_without_structure_are_a_list_of_parts(one: Bench) -> None:
    (text,) = await one.step(("one_greet", {"name": "Ada"}))
    assert text["outputs"] == [{"type": "text", "text": "Hello, Ada!"}]
    (small,) = await one.step(("one_paint", {"size": 3}))
    assert small["outputs"][1] == {"type": "image", "mime_type": "image/png", "data": "AAAA"}
    (large,) = await one.step(("one_paint", {"size": 60_000}))
    assert large["outputs"][1] == {"type": "image", "mime_type": "image/png", "left_out": "about 60000 bytes"}


async def test_a_tool_that_fails_or_gets_the_wrong_input_says_why(one: Bench) -> None:
    refused, misfit = await one.step(("one_refuse", {}), ("one_add", {"a": "two"}))
    assert refused["type"] == misfit["type"] == "error"
    assert refused["error"] == misfit["error"] == "tool_failed"
    assert "I will not" in refused["message"]
    assert "validation error" in misfit["message"]


async def test_an_output_that_is_too_large_is_refused_and_a_huge_one_harms_nobody_for_long(one: Bench) -> None:
    large = await one.run("one_write", chars=1_100_000)
    assert isinstance(large, ErrorResponse)
    assert large.error == "output_too_large"
    assert len(large.model_dump_json()) < 1_000
    huge = await one.run("one_write", chars=30_000_000)
    assert isinstance(huge, ErrorResponse)
    assert len(huge.model_dump_json()) < 5_000
    await one.until_answers("one_add", a=1, b=2)


async def test_a_slow_call_ends_at_its_limit_and_the_server_is_told(tmp_path: Path) -> None:
    slow = {**FAKE, "env": {**HERE, "MARKS": str(tmp_path / "marks")}, "timeout": limit(2)}
    async with bench(tmp_path, {"slow": slow}) as there:
        await there.until(lambda: bool(there.offered))
        (told,) = await there.step(("slow_sleep", {"seconds": 600}))
        assert told == {"type": "error", "message": "The tool took too long.", "error": "timeout"}
        await there.until(lambda: words_in(tmp_path / "marks") == ["begun", "cancelled"])
        (told,) = await there.step(("slow_add", {"a": 1, "b": 2}))
        assert told["type"] == "block_output"


async def test_cancelling_a_call_waits_for_nobody_and_tells_the_server(own: Bench, tmp_path: Path) -> None:
    call = asyncio.create_task(own.run("one_sleep", seconds=600))
    await own.until(lambda: words_in(tmp_path / "marks") == ["begun"])
    call.cancel()
    done, _ = await asyncio.wait({call}, timeout=LIMIT)
    assert done
    await own.until(lambda: words_in(tmp_path / "marks") == ["begun", "cancelled"])
    assert isinstance(await own.run("one_add", a=1, b=2), BlockOutput)


async def test_only_so_many_calls_of_a_server_are_under_way_at_once(one: Bench) -> None:
    from executor.mcp.connection import MAX_CALLS  # imports the SDK

    responses = await asyncio.gather(*(one.run("one_crowd", size=MAX_CALLS) for _ in range(3 * MAX_CALLS)))
    seen = [cast(BlockOutput, response).outputs["result"] for response in responses]
    assert max(seen) == MAX_CALLS


async def test_a_server_that_dies_costs_the_calls_under_way(own: Bench, tmp_path: Path) -> None:
    sleeping = asyncio.create_task(own.run("one_sleep", seconds=600))
    await own.until(lambda: words_in(tmp_path / "marks") == ["begun"])
    (told,) = await own.step(("one_die", {}))
    assert (told["type"], told["error"]) == ("error", "interrupted_unknown_effect")
    assert cast(ErrorResponse, await sleeping).error == "interrupted_unknown_effect"


async def test_a_dead_program_is_started_again(tmp_path: Path) -> None:
    async with bench(tmp_path, {"one": PLAIN}) as there:
        await there.until(lambda: bool(there.offered))
        first = cast(BlockOutput, await there.run("one_pid"))
        await there.step(("one_die", {}))
        assert there.offered == set()
        (told,) = await there.step(("one_pid", {}))
        assert (told["type"], told["error"]) == ("error", "tool_unavailable")
        await there.until(lambda: "one_pid" in there.offered)
        second = cast(BlockOutput, await there.run("one_pid"))
        assert first.outputs != second.outputs


async def test_an_http_server_that_was_away_is_connected_again(tmp_path: Path) -> None:
    port = free_port()
    async with bench(tmp_path, {"one": {"url": f"http://127.0.0.1:{port}/mcp"}}) as there:
        assert there.offered == set()
        async with http_server(port, "tests.fakes.careless_mcp_server", TOOLS=json.dumps(TOOLS)):
            await there.until(lambda: "one_pid" in there.offered)
            first = cast(BlockOutput, await there.run("one_pid"))
        (told,) = await there.step(("one_pid", {}))
        assert told["type"] == "error"
        await there.until(lambda: there.offered == set())
        (told,) = await there.step(("one_pid", {}))
        assert told["error"] == "tool_unavailable"
        async with http_server(port, "tests.fakes.careless_mcp_server", TOOLS=json.dumps(TOOLS)):
            await there.until(lambda: "one_pid" in there.offered)
            assert cast(BlockOutput, await there.run("one_pid")).outputs != first.outputs


async def test_a_program_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.mcp.connection.CHECK_EVERY", 0.1)
    monkeypatch.setattr("executor.mcp.connection.CHECK_TIMEOUT", limit(2))
    async with bench(tmp_path, {"one": PLAIN}) as there:
        await there.until(lambda: bool(there.offered))
        pid = cast(BlockOutput, await there.run("one_pid")).outputs["result"]
        os.kill(pid, signal.SIGSTOP)
        await there.until(lambda: not there.offered)
        await there.until(lambda: bool(there.offered))
        assert not running(pid)


async def test_a_program_that_hangs_while_calls_go_on_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.mcp.connection.CHECK_EVERY", 0.1)
    monkeypatch.setattr("executor.mcp.connection.CHECK_TIMEOUT", limit(1))

    async def calling(there: Bench) -> None:
        while True:
            await there.step(("one_add", {"a": 1, "b": 2}))
            await asyncio.sleep(0.01)  # a step of a server that is away ends at once

    async with bench(tmp_path, {"one": PLAIN}, tool_timeout=limit(1)) as there:
        await there.until(lambda: bool(there.offered))
        pid = cast(BlockOutput, await there.run("one_pid")).outputs["result"]
        jobs = []
        for _ in range(3):  # at different moments, so that a call is always under way
            jobs.append(asyncio.create_task(calling(there)))
            await asyncio.sleep(limit(0.3))
        os.kill(pid, signal.SIGSTOP)
        await there.until(lambda: not there.offered)
        await there.until(lambda: not running(pid))
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)


async def test_a_program_that_does_one_thing_at_a_time_is_not_taken_for_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.mcp.connection.CHECK_EVERY", 0.1)
    monkeypatch.setattr("executor.mcp.connection.CHECK_TIMEOUT", limit(1))
    async with bench(tmp_path, {"older": OLDER}) as there:
        await there.until(lambda: bool(there.offered))
        assert isinstance(await there.run("older_grow", seconds=limit(2)), BlockOutput)


async def test_a_server_may_have_a_process_for_each_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.mcp.own_links.MAX_OWN", 2)
    async with bench(tmp_path, {"one": {**PLAIN, "per": "session"}}) as there:
        await there.until(lambda: bool(there.offered))

        async def pid_of(session: str) -> int:
            return int(cast(BlockOutput, await there.run("one_pid", of=SessionId(session))).outputs["result"])

        first, again, second = await pid_of("a"), await pid_of("a"), await pid_of("b")
        assert first == again != second
        third = await pid_of("c")
        await there.until(lambda: not running(first))
        assert running(second)
        os.kill(third, signal.SIGKILL)
        await there.until(lambda: not running(third))
        assert await pid_of("b") == second
        await there.until_answers("one_pid", of=SessionId("c"))
    assert not running(second)


async def test_three_servers_at_once_cost_each_other_nothing(tmp_path: Path) -> None:
    servers = {"healthy": PLAIN, "slow": {**PLAIN, "timeout": limit(2)}, "dying": PLAIN}
    async with bench(tmp_path, servers) as there:
        await there.until(lambda: {"healthy_add", "slow_wait", "dying_die"} <= there.offered)
        healthy, slow, dying = await there.step(
            ("healthy_add", {"a": 1, "b": 2}), ("slow_wait", {"seconds": 600}), ("dying_die", {})
        )
        assert (healthy["outputs"], slow["error"]) == ({"result": 3}, "timeout")
        assert dying["error"] == "interrupted_unknown_effect"
        await there.until(lambda: "dying_add" in there.offered)
        again = await there.step(*((f"{name}_add", {"a": 1, "b": 2}) for name in servers))
        assert [told["outputs"] for told in again] == [{"result": 3}] * 3


async def test_a_server_that_is_not_there_costs_its_tools_alone(tmp_path: Path) -> None:
    servers = {
        "none": {"command": "/nowhere/at/all"},
        "nowhere": {**PLAIN, "cwd": "/nowhere/at/all"},
        "deaf": {"command": "sleep", "args": ["1000"]},
        "refusing": {"url": f"http://127.0.0.1:{free_port()}/mcp"},
        "healthy": PLAIN,
    }
    async with bench(tmp_path, servers) as there:
        assert not there.servers["deaf"].tried.is_set()  # opening does not wait for it
        await there.until(lambda: "healthy_add" in there.offered)
        assert {name.partition("_")[0] for name in there.offered} == {"healthy"}
        for name in ("none", "nowhere", "deaf", "refusing"):
            (told,) = await there.step((f"{name}_tool", {}))
            assert told["error"] == "tool_unavailable"
        (told,) = await there.step(("somebody_elses", {}))
        assert told["error"] == "unknown_tool"


async def test_the_file_says_which_tools_are_offered_and_how_they_run(tmp_path: Path) -> None:
    entry = {**FAKE, "tools": ["add", "pid", "sleep", "odd.name with spaces"], "operations": ["sleep"], "timeout": 7}
    async with bench(tmp_path, {"one": {**entry, "idempotent": ["sleep"]}}) as there:
        await there.until(lambda: bool(there.offered))
        assert there.offered == {"one_add", "one_pid", "one_sleep", "one_odd_name_with_spaces"}
        assert [there.tool(f"one_{name}").idempotent for name in ("add", "pid", "sleep")] == [True, False, True]
        assert [there.tool(f"one_{name}").long_running for name in ("add", "pid", "sleep")] == [False, False, True]
        assert there.tool("one_add").time_limit == 7
        assert there.toolbox.find("one_greet") is None


async def test_an_older_server_is_understood_and_a_changed_list_is_heard(tmp_path: Path) -> None:
    """Its list comes in pages, one tool each."""
    async with bench(tmp_path, {"older": OLDER}) as there:
        await there.until(lambda: there.offered == {"older_grow"})
        assert isinstance(await there.run("older_grow"), BlockOutput)
        await there.until(lambda: there.offered == {"older_grow", "older_grown1"})
        assert isinstance(await there.run("older_grow"), BlockOutput)
        await there.until(lambda: len(there.offered) == 3)


async def test_a_program_is_given_nothing_of_our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_API_KEY", SECRET)
    monkeypatch.setenv("GIVEN", "given")
    entry = {**FAKE, "env": {**HERE, "MINE": "${GIVEN} to me"}}
    async with bench(tmp_path, {"one": entry}) as there:
        await there.until(lambda: bool(there.offered))
        seen = cast(BlockOutput, await there.run("one_environment")).outputs
        assert seen["MINE"] == "given to me"
        assert set(seen) <= {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "PYTHONPATH", "MINE", "LC_CTYPE"}


async def test_secrets_of_the_file_do_not_reach_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    configure_logs("DEBUG", "json")
    monkeypatch.setenv("NO_COLOR", "1")
    port = free_port()
    hub = {"url": f"http://127.0.0.1:{port}/mcp?key={SECRET}", "headers": {"Authorization": f"Bearer {SECRET}"}}
    try:
        async with (
            http_server(port) as process,
            bench(
                tmp_path, {"one": {**FAKE, "env": {**HERE, "TOKEN": SECRET}}, "hub": hub, "bad": {**hub, "timeout": 9}}
            ) as there,
        ):
            await there.until(lambda: {"one_die", "hub_die"} <= there.offered)
            await there.step(("one_die", {}), ("hub_die", {}), ("hub_add", {"a": 1, "b": 1}))
            await process.wait()
            await there.until(lambda: "one_die" in there.offered and "hub_die" not in there.offered)
    finally:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
    logged = capfd.readouterr().err
    assert "an MCP server is unavailable" in logged
    assert f"{SAYS} [hidden]" in logged
    assert SECRET not in logged


async def test_a_wrong_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MCP_SERVERS_FILE: "):
        async with bench(tmp_path, {"x": {}}):
            pass


async def test_leaving_ends_every_program_and_what_it_has_started(tmp_path: Path) -> None:
    """The older server does not end with its input, and has a child that has no input at all."""
    stubborn = {**OLDER, "args": [*OLDER["args"], "987"]}
    before = descendants(os.getpid())
    async with bench(tmp_path, {"stubborn": stubborn, "one": PLAIN}) as there:
        await there.until(lambda: {"stubborn_grow", "one_pid"} <= there.offered)
        started = descendants(os.getpid()) - before
        assert cast(BlockOutput, await there.run("one_pid")).outputs["result"] in started
        assert len(started) >= 5  # two guards, two servers, and the child of one
    assert not [pid for pid in started if running(pid)]

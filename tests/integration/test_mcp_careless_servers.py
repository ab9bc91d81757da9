"""MCP servers that answer wrongly, forget or refuse: each costs the call that meets it, and is told at once."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.chat.protocol.chunks import Data, ToolOutputAvailable
from backend.ids import SessionId
from executor.mcp.call_slots import MAX_CALLS, RESERVED
from executor.mcp.failures import ReasonKind
from executor.metrics import ExecutorMetrics
from tests.fakes.running import words_in
from tests.integration.mcp_bench import CARELESS, HERE, Bench, bench, http_server
from tests.plain_http import http_client
from tests.servers.ports import free_port
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import lasting, limit

MODULE = "tests.fakes.careless_mcp_server"
AT_ONCE = limit(10)
"""Far less than the time limit of the calls here."""
RESULT = '{"content": [{"type": "text", "text": "%s"}]}'
UNUSABLE = [
    '{"jsonrpc": "2.0", "id": @ID@, "result": null}',
    '{"jsonrpc": "2.0", "id": @ID@, "result": [1]}',
    '{"jsonrpc": "2.0", "id": @ID@}',
    '{"jsonrpc": "2.0", "id": @ID@, "result": {"content": [',
    '{"jsonrpc": "2.0", "id": @ID@, "result": {"a": %s}}' % ("[" * 3_000 + "]" * 3_000),
]
REPAIRED = [
    '{"jsonrpc": "2.0", "id": @ID@, "result": {"content": [{"type": "hologram", "of": "here"}]}}',
    '{"jsonrpc": "2.0", "id": @ID@, "result": {"content": "here"}}',
    '{"jsonrpc": "2.0", "id": @ID@, "result": {"content": [{"type": "text", "text": "\\ud83dhere"}]}}',
    '{"jsonrpc": "1.0", "id": @ID@, "error": null, "result": %s}' % (RESULT % "here"),
    '{"id": "@ID@", "result": %s}' % (RESULT % "here"),
    '[{"jsonrpc": "2.0", "method": "notifications/message"}, {"jsonrpc": "2.0", "id": @ID@, "result": %s}]'
    % (RESULT % "here"),
]
ERRORS = [
    ('{"jsonrpc": "2.0", "id": @ID@, "error": {"code": -32000, "message": "Quota exceeded"}}', "Quota exceeded"),
    ('{"jsonrpc": "2.0", "id": @ID@, "error": {"code": -32902, "message": "No."}}', "No."),
    ('{"jsonrpc": "2.0", "id": @ID@, "error": {"code": "E_QUOTA", "message": "Too much"}}', "E_QUOTA: Too much"),
    ('{"jsonrpc": "2.0", "id": @ID@, "error": {"code": -1, "message": null}}', "has no message"),
    ('{"jsonrpc": "2.0", "id": @ID@, "error": {"code": -1, "message": {"why": "so"}}}', '{"why":"so"}'),
    ('{"jsonrpc": "2.0", "id": @ID@, "error": "plainly no"}', "plainly no"),
]


@asynccontextmanager
async def careless(folder: Path, kind: str, **settings: Any) -> AsyncIterator[Bench]:
    """A careless server named `one`."""
    if kind == "stdio":
        async with bench(folder, {"one": CARELESS}, tool_timeout=limit(600), **settings) as there:
            await there.until(lambda: bool(there.offered))
            yield there
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}/{kind}"
    async with (
        http_server(port, MODULE, MARKS=str(folder / "marks")),
        bench(folder, {"one": {"url": url}}, tool_timeout=limit(600), **settings) as there,
    ):
        await there.until(lambda: bool(there.offered))
        yield there


@pytest.mark.parametrize("kind", ["stdio", "json", "events"])
async def test_whatever_has_the_id_of_a_call_answers_it_at_once(kind: str, tmp_path: Path) -> None:
    texts = [*UNUSABLE, *REPAIRED, *(text for text, _ in ERRORS)]
    async with careless(tmp_path, kind) as there, asyncio.timeout(AT_ONCE):
        told = await there.step(*(("one_say", {"text": text}) for text in texts))
        for output in told[: len(UNUSABLE)]:
            assert (output["type"], output["error"]) == ("error", "tool_failed")
        for output in told[len(UNUSABLE) :][: len(REPAIRED)]:
            assert "here" in output["outputs"][0]["text"]
        for output, (_, words) in zip(told[-len(ERRORS) :], ERRORS, strict=True):
            assert (output["type"], output["error"]) == ("error", "tool_failed")
            assert words in output["message"]
        assert (await there.step(("one_wait", {})))[0]["type"] == "block_output"


@pytest.mark.parametrize("kind", ["stdio", "json", "events"])
@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc": "2.0", "id": @ID@, "result": {"content": [{"type": "text", "text": "@BIG@"}]}}',
        '{"result": {"content": [{"type": "text", "text": "@BIG@"}]}, "jsonrpc": "2.0", "id": @ID@}',
    ],
)
async def test_an_answer_over_four_megabytes_costs_its_own_call(kind: str, text: str, tmp_path: Path) -> None:
    async with careless(tmp_path, kind) as there:
        large, other = await there.step(("one_say", {"text": text}), ("one_wait", {"seconds": 1}))
        assert (large["type"], large["error"]) == ("error", "output_too_large")
        assert other["type"] == "block_output"
        assert there.servers["one"].status.failures == {}


@pytest.mark.parametrize("kind", ["sessions", "node"])
async def test_a_forgotten_session_is_begun_again_and_its_call_runs_once(kind: str, tmp_path: Path) -> None:
    async with careless(tmp_path, kind) as there:
        url = there.servers["one"].server.url.get_secret_value()  # type: ignore[union-attr]
        async with http_client() as client:
            await client.post(url.replace(kind, "forget"))
        told = await there.step(*(("one_wait", {"number": number}) for number in range(3)))
        assert [output["type"] for output in told] == ["block_output"] * 3
        assert words_in(tmp_path / "marks") == ["wait"] * 3


async def test_a_refused_connection_costs_the_call_that_met_it(tmp_path: Path) -> None:
    port, marks = free_port(), tmp_path / "marks"
    async with (
        http_server(port, MODULE, MARKS=str(marks)),
        FaultProxy("127.0.0.1", port) as proxy,
        bench(tmp_path, {"one": {"url": f"http://127.0.0.1:{proxy.port}/json"}}) as there,
        asyncio.TaskGroup() as jobs,
    ):
        await there.until(lambda: bool(there.offered))
        waiting = jobs.create_task(there.step(*[("one_wait", {"seconds": lasting(1)})] * 3))
        await there.until(lambda: words_in(marks) == ["wait"] * 3)
        await proxy.switch(Mode.REFUSE)
        refused = await there.step(*[("one_wait", {})] * 3)
        assert [output["error"] for output in refused] == ["tool_unavailable"] * 3
        assert [output["type"] for output in await waiting] == ["block_output"] * 3
        await proxy.switch(Mode.PASS)
        await there.until(lambda: bool(there.offered))
        assert (await there.step(("one_wait", {})))[0]["type"] == "block_output"


async def test_a_server_that_exits_at_the_newest_handshake_is_spoken_to_in_the_older_one(tmp_path: Path) -> None:
    async with bench(tmp_path, {"one": {**CARELESS, "env": {**HERE, "OLD_RUST": "1"}}}) as there:
        await there.until(lambda: bool(there.offered))
        assert (await there.step(("one_wait", {})))[0]["type"] == "block_output"
        assert there.servers["one"].status.failures == {"exited": 1}


async def test_a_start_may_take_as_long_as_the_file_or_the_setting_says(tmp_path: Path) -> None:
    late = {**CARELESS, "env": {**HERE, "START_DELAY": "3"}}
    servers = {"patient": {**late, "start_timeout": limit(60)}, "hasty": {**late, "start_timeout": 0.5}, "usual": late}
    async with bench(tmp_path, servers, mcp_start_timeout=limit(60)) as there:
        await there.until(lambda: {"patient_wait", "usual_wait"} <= there.offered)
        status = there.servers["hasty"].status
        assert not status.connected
        assert set(status.failures) == {"does_not_answer"}


@pytest.fixture
async def statuses(tmp_path: Path) -> AsyncIterator[Bench]:
    port = free_port()
    servers: dict[str, Any] = {f"s{n}": {"url": f"http://127.0.0.1:{port}/status/{n}"} for n in KINDS}
    servers["tls"] = {"url": f"https://127.0.0.1:{port}/json"}
    servers["refused"] = {"url": f"http://127.0.0.1:{free_port()}/mcp"}
    servers["exits"] = {**CARELESS, "env": {**HERE, "TOKEN": "s3cr3t-0123", "LAST_WORDS": "1"}}
    async with http_server(port, MODULE), bench(tmp_path, servers) as there:
        await there.until(lambda: all(server.status.why for server in there.servers.values()))
        yield there


KINDS = {
    401: ("unauthorized", "set headers.Authorization"), 403: ("forbidden", "403"), 404: ("not_found", "404"),
    405: ("method_not_allowed", "SSE"), 429: ("rate_limited", "429"), 500: ("server_error", "500"),
    503: ("server_error", "503"), 302: ("redirected", "302"), 200: ("protocol", "does not answer as an MCP server"),
}  # fmt: skip


async def test_the_reason_for_which_a_server_is_unavailable_is_known(statuses: Bench) -> None:
    found = {name: server.status for name, server in statuses.servers.items()}
    for number, (reason, words) in KINDS.items():
        assert words in (found[f"s{number}"].why or "")
        assert set(found[f"s{number}"].failures) == {reason}
    assert "/.well-known/oauth-protected-resource" in (found["s401"].why or "")
    assert set(found["tls"].failures) == {"tls"}
    assert (found["refused"].why, set(found["refused"].failures)) == ("Connection refused", {"unreachable"})
    assert "API_KEY [hidden] is bad" in (found["exits"].why or "")
    assert not [name for name, status in found.items() if "secret" in (status.why or "")]
    (told,) = await statuses.step(("s401_tool", {}))
    assert told["error"] == "tool_unavailable"
    assert "401" in told["message"]
    metrics = ExecutorMetrics()
    metrics.watch_tool_servers(lambda: list(found.values()), ReasonKind)
    text = metrics.render().decode()
    assert 'mcp_server_up{server="s401"} 0.0' in text
    assert re.search(r'mcp_server_failures_total\{reason="unauthorized",server="s401"\} [1-9]', text)
    assert 'mcp_server_failures_total{reason="exited",server="s401"} 0.0' in text


def bad_tools() -> Iterator[dict[str, Any]]:
    for name, schema in {
        "array": {"type": "array"}, "null": None, "no_type": {"properties": {"a": {}}},
        "names": {"type": "object", "properties": {"$filter": {"type": "string"}, "constructor": {"type": "array"}}},
    }.items():  # fmt: skip
        yield {"name": name, "inputSchema": schema, "outputSchema": {"type": "array"}, "icons": [{"src": 1}]}
    yield {"name": "task", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}
    yield {"inputSchema": {"type": "object"}}


async def test_one_bad_tool_costs_no_other_and_renamed_parameters_reach_the_server(tmp_path: Path) -> None:
    entry = {**CARELESS, "env": {**HERE, "TOOLS": json.dumps(list(bad_tools()))}}
    async with bench(tmp_path, {"one": entry}) as there:
        await there.until(lambda: bool(there.offered))
        assert there.offered == {f"one_{name}" for name in ("say", "wait", "null", "no_type", "names")}
        assert set(there.servers["one"].status.unusable) == {"array", "task"}
        spec = there.tool("one_names").spec.parameters
        wanted, odd = spec["properties"]  # type: ignore[misc]
        (told,) = await there.step(("one_names", {wanted: "x", odd: [1]}))
        assert json.loads(told["outputs"][0]["text"]) == {"$filter": "x", "constructor": [1]}


async def test_instructions_of_servers_are_told_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    servers = {
        "one": CARELESS, "two": {**CARELESS, "instructions": False}, "three": {**CARELESS, "instructions": "Hurry."},
    }  # fmt: skip
    async with bench(tmp_path, servers) as there:
        await there.until(lambda: all(server.status.connected for server in there.servers.values()))
        assert there.toolbox.instructions == [("one", "Always say please."), ("three", "Hurry.")]


async def test_each_program_works_in_a_folder_of_its_own(tmp_path: Path) -> None:
    entry = {"command": "sh", "args": ["-c", f"pwd > {tmp_path}/$NAME; exec sleep 1000"]}
    servers = {name: {**entry, "env": {"NAME": name}} for name in ("one", "two")}
    async with bench(tmp_path, servers) as there:
        await there.until(lambda: all(words_in(tmp_path / name) for name in servers))
        folders = {folder for name in servers for folder in words_in(tmp_path / name)}
        assert len(folders) == 2
        assert str(Path.cwd()) not in folders
    assert not [folder for folder in folders if Path(folder).exists()]


async def test_the_progress_of_a_call_is_shown_and_gives_it_more_time(tmp_path: Path) -> None:
    """The call takes longer than its limit, but no step of it does."""
    pause = limit(0.7)
    entry = {**CARELESS, "timeout": 3 * pause}
    async with bench(tmp_path, {"one": entry}) as there:
        await there.until(lambda: bool(there.offered))
        shown, (told,) = await there.shown_step(("one_wait", {"steps": 5, "pause": pause}))
        assert told["type"] == "block_output"
        reports = [chunk for chunk in shown if isinstance(chunk, Data)]
        assert [(chunk.name, chunk.id) for chunk in reports] == [("progress", "call0")] * 5
        assert [chunk.data for chunk in reports][:2] == [
            {"percent": 20, "message": "step 1"}, {"percent": 40, "message": "step 2"},
        ]  # fmt: skip
        assert isinstance(shown[-1], ToolOutputAvailable)


async def test_what_an_answer_links_to_can_be_read(tmp_path: Path) -> None:
    link = '{"type": "resource_link", "uri": "note://1", "name": "a note"}'
    async with bench(tmp_path, {"one": CARELESS}) as there:
        await there.until(lambda: bool(there.offered))
        assert "one_read_resource" not in there.offered
        text = f'{{"jsonrpc": "2.0", "id": @ID@, "result": {{"content": [{link}]}}}}'
        (told,) = await there.step(("one_say", {"text": text}))
        (part,) = told["outputs"]
        assert (part["type"], part["uri"]) == ("resource_link", "note://1")
        assert "one_read_resource" in there.offered
        (told,) = await there.step(("one_read_resource", {"uri": part["uri"]}))
        assert (told["block_id"], told["outputs"][0]["text"]) == ("one.read_resource", "as linked")


async def test_calls_of_many_turns_do_not_end_while_they_wait_for_a_place(tmp_path: Path) -> None:
    """The last call waits longer than a call may take."""
    seconds = limit(0.4)
    async with bench(tmp_path, {"one": {**CARELESS, "calls": 1, "timeout": 3 * seconds}}) as there:
        await there.until(lambda: bool(there.offered))
        calls = [there.shown_step(("one_wait", {"seconds": seconds}), of=SessionId(f"s{n}")) for n in range(7)]
        told = [output for _, (output,) in await asyncio.gather(*calls)]
        assert [output["type"] for output in told] == ["block_output"] * 7


async def test_a_turn_with_many_calls_leaves_places_to_others(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    entry = {**CARELESS, "env": {**HERE, "MARKS": str(marks)}}
    async with bench(tmp_path, {"one": entry}) as there, asyncio.TaskGroup() as jobs:
        await there.until(lambda: bool(there.offered))
        greedy = jobs.create_task(there.shown_step(*[("one_wait", {"seconds": lasting(1)})] * (MAX_CALLS + RESERVED)))
        await there.until(lambda: len(words_in(marks)) == MAX_CALLS)
        _, (told,) = await there.shown_step(("one_wait", {}), of=SessionId("modest"))
        assert told["type"] == "block_output"
        assert not greedy.done()
        assert [output["type"] for output in (await greedy)[1]] == ["block_output"] * (MAX_CALLS + RESERVED)


async def test_a_notification_that_is_never_answered_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.mcp.http.CONNECT_LIMIT", limit(1))
    async with careless(tmp_path, "hangs") as there:
        assert [output["type"] for output in await there.step(*[("one_wait", {})] * 3)] == ["block_output"] * 3


async def test_a_server_that_repeats_what_it_was_sent_tells_nobody_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="executor")
    port = free_port()
    bearer = {"headers": {"Authorization": "Bearer t0ken-s3cret"}}
    servers: dict[str, Any] = {
        "bearer": {"url": f"http://127.0.0.1:{port}/echo?key=qu3ry%20s3cret", **bearer},
        "basic": {"url": f"http://user:p4ss-s3cret@127.0.0.1:{port}/echo"},
        "repeats": {"url": f"http://127.0.0.1:{port}/repeats?qu3ry-s3cret", **bearer},
    }
    async with http_server(port, MODULE), bench(tmp_path, servers) as there:
        await there.until(lambda: bool(there.offered))
        await there.until(lambda: all(there.servers[name].status.why for name in ("bearer", "basic")))
        told = await there.step(("bearer_x", {}), ("basic_x", {}), ("repeats_wait", {}))
        assert [output["error"] for output in told] == ["tool_unavailable", "tool_unavailable", "tool_failed"]
        words = [output["message"] for output in told]
        words += [there.servers[name].status.why or "" for name in ("bearer", "basic")]
    assert all("The login [hidden] is not valid for /" in said for said in words)
    known = ("t0ken", "qu3ry", "p4ss", "s3cret", "dXNlcjpwNHNz")
    assert not [word for word in known for said in (*words, caplog.text) if word in said]


async def test_a_call_waits_for_a_new_session_that_is_being_made(tmp_path: Path) -> None:
    async with careless(tmp_path, "sessions") as there:
        server = there.servers["one"]
        url = server.server.url.get_secret_value()  # type: ignore[union-attr]
        async with http_client() as client:
            await client.post(url.replace("sessions", "forget"))
        first = asyncio.create_task(there.step(("one_wait", {})))
        async with asyncio.timeout(AT_ONCE):
            while server.status.connected:
                await asyncio.sleep(0)  # each turn of the loop, so that the gap is not missed
        (second,) = await there.step(("one_wait", {}))
        assert [second["type"], (await first)[0]["type"]] == ["block_output"] * 2


@pytest.mark.parametrize(
    ("choice", "reads"),
    [
        ({"excluded": ["read_resource"]}, False),
        ({"tools": ["say"]}, False),
        ({"tools": ["say", "read_resource"]}, True),
    ],
)
async def test_resources_are_read_only_as_the_file_allows(tmp_path: Path, choice: dict[str, Any], reads: bool) -> None:
    link = '{"type": "resource_link", "uri": "note://1", "name": "a note"}'
    async with bench(tmp_path, {"one": {**CARELESS, **choice}}) as there:
        await there.until(lambda: bool(there.offered))
        text = f'{{"jsonrpc": "2.0", "id": @ID@, "result": {{"content": [{link}]}}}}'
        await there.step(("one_say", {"text": text}))
        assert ("one_read_resource" in there.offered) is reads
        (told,) = await there.step(("one_read_resource", {"uri": "note://1"}))
        assert (told["type"] == "block_output") is reads

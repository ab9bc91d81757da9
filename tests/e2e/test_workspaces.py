"""The files of a conversation and commands in the sandbox, with API, executor and sandbox as processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from executor.sandbox.bubblewrap import find_bubblewrap
from tests import ROOT
from tests.e2e.agents import outputs
from tests.e2e.chat_api import asked, ending_of, history_of, open_session
from tests.e2e.stack import Servers, Stack, new_user, open_stack, ready
from tests.office_files import workbook
from tests.plain_http import http_client
from tests.servers.bubblewrap_install import HINT
from tests.servers.fork_server import Process, start
from tests.servers.process_tree import all_gone, descendants
from tests.speed import limit

pytestmark = pytest.mark.skipif(find_bubblewrap() is None, reason=HINT)
LONG, SHORT = {"timeout": 120}, {"timeout": 1}
"""Arguments of bash_exec."""


@asynccontextmanager
async def sandbox_process(folder: Path, socket: Path) -> AsyncIterator[Process]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    process = await start(
        ("executor.sandbox", str(socket)), cwd=folder, environment=environment, log=folder / "sandbox.log"
    )
    try:
        async with asyncio.timeout(limit(30)):
            while not socket.exists():
                assert process.returncode is None, (folder / "sandbox.log").read_text()
                await asyncio.sleep(0.02)  # between two checks of a bounded wait
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


@pytest.fixture(scope="module")
async def rig(
    postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stack, Process]]:
    folder = tmp_path_factory.mktemp("stack")
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as short:
        socket = Path(short) / "sandbox.sock"
        async with (
            sandbox_process(folder, socket) as sandbox,
            open_stack(Servers(postgres_dsn, redis_dsn), folder, SANDBOX_SOCKET=str(socket)) as stack,
        ):
            yield stack, sandbox


@pytest.fixture
def stack(rig: tuple[Stack, Process]) -> Stack:
    return rig[0]


def call(tool: str, **arguments: Any) -> str:
    return f"/tool {tool} {json.dumps(arguments)}"


async def answers(client: httpx.AsyncClient, session: str, *calls: str) -> list[dict[str, Any]]:
    """Returns the outputs of calls that run one after the other."""
    async with asked(client, session, "\n/then\n".join(calls) + "\n/then\n/say Done") as stream:
        return await outputs(stream)


async def files_of(client: httpx.AsyncClient, session: str) -> dict[str, dict[str, Any]]:
    response = await client.get(f"/api/chat/sessions/{session}/workspace")
    assert response.status_code == 200, response.text
    return {file["path"]: file for file in response.json()["files"]}


async def test_tools_write_list_read_and_delete_files(stack: Stack) -> None:
    async with stack.client(new_user()) as client, stack.client(new_user()) as stranger:
        session = await open_session(client)
        upload = await client.post("/api/chat/files", params={"filename": "a b.csv"}, content=b"x,y\n1,2\n")
        sheets = await client.post("/api/chat/files", params={"filename": "s.xlsx"}, content=workbook())
        ids = [upload.json()["id"], sheets.json()["id"]]
        async with asked(client, session, "/say Thanks", file_ids=ids) as stream:
            await stream.rest()
        written, again, listed, read, part, given, office, refused, deleted, missing = await answers(
            client,
            session,
            call("write_workspace_file", path="/workspace/notes/may.md", content="# May"),
            call("write_workspace_file", path="notes/may.md", content="# May, again"),
            call("list_workspace_files"),
            call("read_workspace_file", path="notes/may.md"),
            call("read_workspace_file", path="notes/may.md", start=7),
            call("read_workspace_file", path="attachments/a b.csv"),
            call("read_workspace_file", path="attachments/s.xlsx"),
            call("write_workspace_file", path="attachments/a b.csv", content="no"),
            call("delete_workspace_file", path="notes/may.md"),
            call("read_workspace_file", path="notes/may.md"),
        )
        assert (written["type"], written["path"], written["size_bytes"]) == (
            "workspace_file_written",
            "notes/may.md",
            5,
        )
        assert again["size_bytes"] == 12
        assert again["url"] == listed["files"][2]["url"] != written["url"]
        paths = ["attachments/a b.csv", "attachments/s.xlsx", "notes/may.md"]
        assert [file["path"] for file in listed["files"]] == paths
        assert "2026-01-31,42,2.5,True" in office["content"]
        assert (read["content"], part["content"], given["content"]) == ("# May, again", "again", "x,y\n1,2\n")
        assert read["mime_type"] == "text/markdown"
        assert refused["error"] == "invalid_path"
        assert deleted["success"] is True
        assert missing["error"] == "file_not_found"
        await answers(client, session, call("write_workspace_file", path="page.html", content="<script>1</script>"))
        files = await files_of(client, session)
        assert {path: file["written"] for path, file in files.items()} == {
            "attachments/a b.csv": False,
            "attachments/s.xlsx": False,
            "page.html": True,
        }
        shown = await client.get(files["page.html"]["url"])
        assert shown.headers["content-disposition"].startswith("attachment")
        async with http_client(base_url=stack.base) as anyone:
            assert (await anyone.get(files["page.html"]["link"])).text == "<script>1</script>"
        path = f"/api/chat/sessions/{session}/workspace"
        for method, end in (("GET", ""), ("DELETE", "/page.html")):
            assert (await stranger.request(method, path + end)).json()["code"] == "session_not_found"
        assert (await client.delete(f"{path}/attachments/a b.csv")).json()["code"] == "invalid_path"
        assert (await client.delete(f"{path}/page.html")).status_code == 200
        assert (await client.delete(f"{path}/page.html")).json()["code"] == "file_not_found"
        assert (await client.delete(f"/api/chat/sessions/{session}")).is_success
        assert (await client.get(files["attachments/a b.csv"]["url"])).status_code == 404


async def test_a_command_uses_and_changes_the_files(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        upload = await client.post("/api/chat/files", params={"filename": "in.txt"}, content=b"b\na\n")
        async with asked(client, session, "/say Thanks", file_ids=[upload.json()["id"]]) as stream:
            await stream.rest()
        first, second, third = await answers(
            client,
            session,
            call("bash_exec", command="sort attachments/in.txt | tee out.txt; head -c 10 /dev/zero >data; echo no >&2"),
            call("bash_exec", command="echo 1 >attachments/in.txt; mv out.txt sorted; rm data; exit 4"),
            call("bash_exec", command="sleep 300", **SHORT),
        )
        assert (first["stdout"], first["stderr"], first["exit_code"]) == ("a\nb\n", "no\n", 0)
        assert first["message"] == "Exit code 0. Written: data, out.txt."
        assert second["exit_code"] == 4
        for words in ("Not kept, because of the path or the size: attachments/in.txt.", "Deleted: data, out.txt."):
            assert words in second["message"]
        assert (third["timed_out"], third["message"]) == (True, "The command took too long and was ended.")
        append = call("bash_exec", command="cat sorted >>twice; ls")
        both = await answers(client, session, f"{append}\n{append}")
        assert [one["exit_code"] for one in both] == [0, 0]
        files = await files_of(client, session)
        assert set(files) == {"attachments/in.txt", "sorted", "twice"}
        assert (await client.get(files["twice"]["url"])).text == "a\nb\na\nb\n"
        names = call("bash_exec", command="touch $'\\xff' $'a\\nb'; ln -s sorted link; rm twice")
        (odd,) = await answers(client, session, names)
        assert "Not kept, because of the path or the size: " in odd["message"]
        assert "Not kept, because they are no files: link." in odd["message"]
        assert "Deleted: twice." in odd["message"]
        many = call("bash_exec", command="echo seen; for n in {1..300}; do echo $n >file$n; done")
        (full,) = await answers(client, session, many)
        assert (full["error"], full["details"]["stdout"]) == ("too_many_files", "seen\n")
        assert set(await files_of(client, session)) == {"attachments/in.txt", "sorted"}
        assert (await client.get(files["sorted"]["url"])).text == "a\nb\n"
        assert (await client.get(files["attachments/in.txt"]["url"])).text == "b\na\n"


async def test_a_stopped_command_ends_and_a_killed_executors_command_does_not_run_twice(
    rig: tuple[Stack, Process],
) -> None:
    stack, sandbox = rig
    async with stack.client(new_user()) as client, asyncio.timeout(limit(60)):
        session = await open_session(client)
        async with asked(client, session, call("bash_exec", command="sleep 300", **LONG)) as stream:
            async with asyncio.timeout(limit(20)):
                while len(running := descendants(sandbox.pid)) < 3:
                    await asyncio.sleep(0.02)  # between two checks of a bounded wait
            assert (await client.post(f"/api/chat/tasks/{stream.task_id}/cancel")).status_code == 200
            await stream.rest()
        assert ending_of(stream.events) == "cancelled"
        await all_gone(running, limit(2))
        command = call("bash_exec", command="echo ran; sleep 300", **LONG)
        async with asked(client, session, f"{command}\n/then\n/say On") as stream:
            while len(running := descendants(sandbox.pid)) < 3:
                await asyncio.sleep(0.02)  # between two checks of a bounded wait
            (executor,) = stack.executors
            executor.send(signal.SIGKILL)
            await all_gone(running, limit(5))
            await ready(await stack.start_executor())
            await stream.rest()
        assert ending_of(stream.events) == "completed"
        (part,) = [part for part in (await history_of(client, session))[-1]["parts"] if part["type"] == "dynamic-tool"]
        assert part["errorText"].startswith("The server stopped while this"), part
        assert descendants(sandbox.pid) == set()


async def test_without_a_sandbox_that_works_the_tool_is_not_offered(rig: tuple[Stack, Process]) -> None:
    stack, sandbox = rig
    (executor,) = stack.executors
    async with stack.client(new_user()) as client, http_client(base_url=executor.url) as health:
        assert (await health.get("/health")).json()["sandbox"] == {"works": True}
        sandbox.send_signal(signal.SIGTERM)
        await sandbox.wait()
        session = await open_session(client)
        (output,) = await answers(client, session, call("bash_exec", command="true"))
        assert output["error"] == "tool_unavailable"
        async with asyncio.timeout(limit(60)):
            while (said := (await health.get("/health")).json()["sandbox"])["works"]:
                await asyncio.sleep(0.2)  # between two checks of a bounded wait
        assert said["why"].startswith("nothing answers at SANDBOX_SOCKET")

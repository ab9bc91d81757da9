"""An upgrade from the build d32ccf1 without a pause: old and new processes run side by side, and the new ones finish
the turns and operations that the old ones began."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests import ROOT
from tests.e2e.agents import create, open_agent_stack, outputs, result_in
from tests.e2e.chat_api import asked, ending_of, followed, history_of, text_in
from tests.e2e.sse import Event, open_stream, text_of
from tests.e2e.stack import Child, Servers, Stack, new_session, new_user
from tests.faults.rig.supervisor import Stores
from tests.faults.scale import FULL
from tests.servers.generator import generator_node
from tests.servers.old_build import HINT, OldBuild, find_or_unpack
from tests.servers.postgres import empty_database
from tests.speed import limit

pytestmark = [pytest.mark.skipif(not FULL, reason="only make faults runs the old build"), pytest.mark.timeout(600)]

WORDS = 400
STORY = f"/stream {WORDS} 25"
TOLD = "".join(f"{number} " for number in range(WORDS))


@pytest.fixture(scope="module")
def old() -> OldBuild:
    if (build := find_or_unpack()) is None:
        pytest.skip(HINT)
    return build


@asynccontextmanager
async def old_stack(old: OldBuild, stores: Stores, dsn: str, folder: Path) -> AsyncIterator[Stack]:
    """Two APIs, two executors and an agent generator of the old build, on an empty database."""
    await migrate(dsn, old.python_path)
    servers = Servers(dsn, stores.redis.dsn, stores.rabbitmq.dsn)
    async with (
        generator_node(folder, redis=stores.redis.dsn) as generator,
        open_agent_stack(servers, generator, folder, PYTHONPATH=old.python_path) as stack,
    ):
        await stack.start_api()
        await stack.start_executor()
        yield stack


async def migrate(dsn: str, python_path: str) -> None:
    """Runs the migrations of a build, as its operator does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend", "migrate"),
        cwd="/", env={"PATH": os.environ["PATH"], "PYTHONPATH": python_path, "DATABASE_URL": dsn},
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), limit(60)) == 0


async def open_session(client: httpx.AsyncClient) -> str:
    """Opens a session. The old build answers 201, the current one 200."""
    response = await client.post("/api/chat/sessions", json={})
    assert response.is_success, response.text
    session: str = response.json()["id"]
    return session


async def told(client: httpx.AsyncClient, reader: httpx.AsyncClient, text: str) -> list[Event]:
    """Asks through one API and reads the answer through another one, from its beginning and again from its middle."""
    session = await open_session(client)
    async with asked(client, session, text) as stream:
        await stream.until(3)
        task, cursor = stream.task_id, stream.last_id
        events = list(stream.events)
    async with followed(reader, task, cursor=cursor) as stream:
        events += await stream.rest()
    assert ending_of(events) == "completed"
    (_, answer) = await history_of(reader, session)
    assert text_in(answer) == text_of(events)
    return events


async def stop(child: Child) -> None:
    child.send(signal.SIGTERM)
    assert await child.ended() == 0, child.log_tail()


async def test_an_upgrade_loses_and_repeats_nothing(old: OldBuild, stores: Stores, tmp_path: Path) -> None:
    async with empty_database(stores.postgres.dsn) as dsn, old_stack(old, stores, dsn, tmp_path) as stack:
        old_apis, old_executors = stack.apis, stack.executors
        user = new_user()
        async with stack.client(user) as client:
            earlier = await open_session(client)
            for text in ("/say Hello there", '/tool find_agent {"query": "mail"}\n/then\n/say That was it', "/say Bye"):
                async with asked(client, earlier, text) as stream:
                    await stream.rest()
            before = await history_of(client, earlier)
            working = await open_session(client)
            async with asked(client, working, create("[generator: 202-webhook delay=20]")) as stream:
                (started,) = await outputs(stream)
            assert started["type"] == "operation_started", started
            long = await open_session(client)
            async with asked(client, long, STORY) as stream:
                await stream.until(20)
                task, cursor = stream.task_id, stream.last_id
            async with asked(client, long, "/say Next", on_busy="queue") as stream:
                queued = stream.task_id

        await migrate(dsn, str(ROOT))
        async with stack.client(user, base=old_apis[0].url) as client:  # the old processes on the new tables
            await told(client, client, "/say Still here")
        new_api = await stack.start_api(PYTHONPATH=str(ROOT))
        new_executor = await stack.start_executor(PYTHONPATH=str(ROOT))
        async with (
            stack.client(user, base=old_apis[0].url) as by_old,
            stack.client(user, base=new_api.url) as by_new,
        ):
            assert [part for message in await history_of(by_new, earlier) for part in message["parts"]] == [
                part for message in before for part in message["parts"]
            ]
            for asking, reading in ((by_old, by_new), (by_new, by_old)) * 4:
                await told(asking, reading, "/say One two three\n/tool find_agent {}\n/then\n/say Four five six")
            old_executors[0].send(signal.SIGKILL)
            await stop(old_executors[1])
            await told(by_old, by_new, "/say A new executor runs what an old API took")
            session = await open_session(by_old)
            async with asked(by_old, session, create("[generator: 202-webhook delay=0.5]")) as stream:
                (later,) = await outputs(stream)
            async with followed(by_new, later["task_id"]) as stream:  # its outcome came to the old API
                assert [saved["type"] for saved in await outputs(stream)] == ["agent_saved"]
            async with followed(by_new, task, cursor=cursor) as stream:
                await stream.rest()
            async with followed(by_new, task) as stream:  # without what a takeover has repeated
                await stream.rest()
            assert (ending_of(stream.events), text_of(stream.events)) == ("completed", TOLD)
            async with followed(by_old, queued) as stream:
                await stream.rest()
                assert text_of(stream.events) == "Next"
        port = old_apis[0].port
        for api in old_apis:
            await stop(api)
        await stack.start_api(port=port, PYTHONPATH=str(ROOT))  # the address that the generator was told
        async with stack.client(user, base=new_api.url) as client:
            async with followed(client, started["task_id"]) as stream:
                (saved,) = await outputs(stream)
            assert saved["type"] == "agent_saved", saved
            assert ending_of(stream.events) == "completed"
            assert await result_in(client, working) == saved
            assert [text_in(message) for message in await history_of(client, long)] == [
                STORY,
                TOLD,
                "/say Next",
                "Next",
            ]
            async with asked(client, earlier, "/say And on") as stream:
                await stream.rest()
            assert text_of(stream.events) == "And on"
        assert new_executor.running


async def send(client: httpx.AsyncClient, session: str, id: str, text: str) -> None:
    """Posts what useChat posts for a message, or for an edit of an earlier one."""
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": session, "messages": [message], "trigger": "submit-message", "messageId": id}
    async with open_stream(client, "POST", "/api/chat", json=body) as stream:
        assert stream.status == 200
        await stream.rest()


async def test_edits_by_old_and_new_processes_keep_every_version(old: OldBuild, stores: Stores, tmp_path: Path) -> None:
    async with empty_database(stores.postgres.dsn) as dsn, old_stack(old, stores, dsn, tmp_path) as stack:
        old_apis, old_executors, user = stack.apis, stack.executors, new_user()
        sessions = [new_session(), new_session()]
        async with stack.client(user) as client:
            for session in sessions:
                for number in (1, 2, 3):
                    await send(client, session, f"m{number}", f"/say first {number}")
            await send(client, sessions[0], "m2", "/say second 2")  # superseded rows from before the upgrade
            await send(client, sessions[0], "m4", "/say first 4")
        await migrate(dsn, str(ROOT))
        new_api = await stack.start_api(PYTHONPATH=str(ROOT))
        await stack.start_executor(PYTHONPATH=str(ROOT))
        async with (
            stack.client(user, base=old_apis[0].url) as by_old,
            stack.client(user, base=new_api.url) as by_new,
        ):
            for turn, (asking, reading) in enumerate(((by_new, by_old), (by_old, by_new)) * 3):
                for session in sessions:
                    await send(asking, session, "m2", f"/say mixed {turn}")
                    await send(reading, session, f"x{turn}", f"/say after {turn}")
                    for client in (by_old, by_new):
                        assert [text_in(message) for message in await history_of(client, session)][2:] == [
                            f"/say mixed {turn}", f"mixed {turn}", f"/say after {turn}", f"after {turn}",
                        ], (turn, client is by_old)  # fmt: skip
                if turn == 2:
                    for executor in old_executors:
                        await stop(executor)
            for session, versions in zip(sessions, (8, 7), strict=True):
                state = (await by_new.get(f"/api/chat/sessions/{session}?format=ui")).json()
                assert [(branch["id"], branch["count"]) for branch in state["branches"]] == [("m2", versions)]

"""A page is fetched again when the executor that fetched it dies."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.e2e.chat_api import asked, ending_of, history_of, open_session
from tests.e2e.stack import Servers, new_user, open_stack, ready
from tests.fakes.loopback_executor import PROGRAM
from tests.fakes.site import page, site
from tests.speed import limit


async def test_a_killed_fetch_runs_again_and_its_page_is_a_source_once(
    postgres_dsn: str, redis_dsn: str, tmp_path: Path
) -> None:
    asked_for = asyncio.Event()

    async def silent(writer: asyncio.StreamWriter) -> None:
        asked_for.set()
        await asyncio.Event().wait()

    servers = Servers(postgres_dsn, redis_dsn)
    async with (
        site({"/": silent}) as one,
        open_stack(servers, tmp_path, executors=0, LOOPBACK_PORT=str(one.port)) as stack,
        stack.client(new_user()) as client,
        asyncio.timeout(limit(60)),
    ):
        first = await stack.spawn("executor", program=PROGRAM)
        await ready(first)
        session = await open_session(client)
        async with asked(client, session, f'/tool web_fetch {{"url": "{one.url("/")}"}}\n/then\n/say Read.') as stream:
            await asked_for.wait()
            one.pages["/"] = page("words of the page", "text/plain")
            first.send(signal.SIGKILL)
            await ready(await stack.spawn("executor", program=PROGRAM))
            events = await stream.rest()
        assert ending_of(events) == "completed"
        assert len(one.requests) == 2
        assert [event.chunk["url"] for event in events if not event.done and event.chunk["type"] == "source-url"] == [
            one.url("/")
        ]
        parts = (await history_of(client, session))[-1]["parts"]
        (call,) = [part for part in parts if part["type"] == "dynamic-tool"]
        assert (call["output"]["content"], call["output"]["status_code"]) == ("words of the page", 200)
        assert [part["url"] for part in parts if part["type"] == "source-url"] == [one.url("/")]

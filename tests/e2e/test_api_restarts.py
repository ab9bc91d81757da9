"""Tests of readers that move from one API process to another, because that stopped or was replaced. Texts stay
exact."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.chat_api import asked, assert_ids_rise, followed, open_session, until_answered
from tests.e2e.sdk import VERSIONS, Act, SdkClients
from tests.e2e.sse import PACE, Event, counted, text_of, words_for
from tests.e2e.stack import Servers, Stack, bearer, new_session, new_user, open_stack
from tests.speed import limit

WORDS = words_for(3)
LONG_ENOUGH = f"/stream {WORDS} {PACE}"


@pytest.fixture
async def two_apis(servers: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(servers, tmp_path, apis=2) as stack:
        yield stack


async def test_a_reader_may_change_to_another_api_in_mid_answer(two_apis: Stack) -> None:
    first, second = two_apis.apis
    user = new_user()
    async with two_apis.client(user, base=first.url) as one, two_apis.client(user, base=second.url) as other:
        session = await open_session(one)
        async with asked(one, session, LONG_ENOUGH) as stream:
            events = [*await stream.until(20)]
            task = stream.task_id
        async with followed(other, task, cursor=events[-1].id) as stream:
            events += await stream.until(40)
        async with followed(one, task, cursor=events[-1].id) as stream:
            events += await stream.rest()
        assert text_of(events) == counted(WORDS)
        assert_ids_rise(events)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_an_api_that_stops_breaks_its_streams_and_another_serves_the_rest(
    two_apis: Stack, how: signal.Signals
) -> None:
    """The API must not end its streams cleanly, because that would look like the end of the answer."""
    first, second = two_apis.apis
    user = new_user()
    async with two_apis.client(user, base=first.url) as one, two_apis.client(user, base=second.url) as other:
        session = await open_session(one)
        async with asked(one, session, LONG_ENOUGH) as stream:
            await stream.until(20)
            first.send(how)
            with pytest.raises(httpx.TransportError):
                await stream.rest()
            events: list[Event] = [*stream.events]
            task = stream.task_id
        assert await first.ended() == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        async with followed(other, task, cursor=events[-1].id) as stream:
            events += await stream.rest()
        assert text_of(events) == counted(WORDS)


async def test_sdk_clients_that_attach_again_do_not_notice_that_the_api_was_replaced(
    two_apis: Stack, sdk_clients: SdkClients
) -> None:
    first = two_apis.apis[0]

    async def one_client(sdk: str, user: str, session: str) -> None:
        opened: Act = {"act": "open", "tab": "a", "resilient": True}
        sent: Act = {"act": "send", "tab": "a", "text": LONG_ENOUGH}
        report = await sdk_clients.play(sdk, first.url, session, [opened, sent], headers=bearer(user))
        assert report.faults == []
        tab = report.tabs["a"]
        assert tab.text == counted(WORDS)
        assert tab.roles == ["user", "assistant"]
        assert len(tab.requests()) == 2

    users = [(sdk, new_user(), new_session()) for sdk in VERSIONS]
    playing = [asyncio.create_task(one_client(*user)) for user in users]
    for _, user, session in users:
        async with two_apis.client(user, base=first.url) as client:
            await until_answered(client, session)
    first.send(signal.SIGTERM)
    await first.ended()
    await two_apis.start_api(port=first.port)
    await asyncio.wait_for(asyncio.gather(*playing), limit(60))

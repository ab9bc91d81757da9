"""Executors that stop or die in mid-answer: the turn goes on elsewhere and nobody reads a word twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.conftest import over_both_queues
from tests.e2e.sdk import VERSIONS, SdkClients
from tests.e2e.sse import counted, text_of
from tests.e2e.stack import Child, Servers, Stack, bearer, new_session, new_user, open_stack
from tests.e2e.talk import asked, ending_of, history_of, open_session, read_with_cuts, text_in

pytestmark = over_both_queues
LEARN = '/tool add_understanding {"user_name":"Ada"}'
TWO_STEPS = f"/stream 10 5\n{LEARN}\n/then\n/stream 150 10"
TWO_STEPS_TEXT = counted(10) + counted(150)


@pytest.fixture
async def lone(servers: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    """One API and one executor, which gives up its turns a second after SIGTERM."""
    async with open_stack(servers, tmp_path, SHUTDOWN_GRACE="1") as stack:
        yield stack


async def end(stack: Stack, how: signal.Signals) -> Child:
    """A new executor starts, the first one gets the signal."""
    (first,) = stack.executors
    await stack.start_executor()
    first.send(how)
    return first


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_a_turn_whose_executor_ends_in_mid_answer_is_finished_by_another(
    lone: Stack, how: signal.Signals
) -> None:
    async with lone.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, TWO_STEPS) as stream:
            await stream.until(40)
            first = await end(lone, how)
            await asyncio.wait_for(stream.rest(), 30)
            task = stream.task_id
        assert stream.done
        assert ending_of(stream.events) == "completed"
        assert await first.ended() == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        late = await read_with_cuts(client, task, [])
        assert text_of(late) == TWO_STEPS_TEXT
        assert text_in((await history_of(client, session))[-1]) == TWO_STEPS_TEXT


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_every_sdk_client_survives_the_death_of_an_executor(
    lone: Stack, sdk_clients: SdkClients, how: signal.Signals
) -> None:
    """Each version reads along; a page that is opened afterwards sees the whole answer once."""

    async def one_client(sdk: str) -> None:
        headers, session = bearer(new_user()), new_session()
        accept = {"accept": "reset-step"} if sdk.startswith("7.") else {}
        opened = [{"act": "open", "tab": "a", **accept}, {"act": "send", "tab": "a", "text": TWO_STEPS}]
        report = await sdk_clients.play(sdk, lone.base, session, opened, headers=headers)
        assert report.faults == []
        tab = report.tabs["a"]
        assert tab.roles == ["user", "assistant"]
        assert tab.last["metadata"]["status"] == "completed"
        if accept:
            assert tab.text == TWO_STEPS_TEXT
        kept = [{"act": "open", "tab": "b", "hydrate": True}]
        report = await sdk_clients.play(sdk, lone.base, session, kept, headers=headers)
        assert report.faults == []
        assert report.tabs["b"].text == TWO_STEPS_TEXT

    async with lone.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, TWO_STEPS) as pace:
            playing = [asyncio.create_task(one_client(sdk)) for sdk in VERSIONS]
            await pace.until(60)  # by then the others are in mid-answer too
            await end(lone, how)
            await asyncio.wait_for(asyncio.gather(*playing), 60)
            await pace.rest()

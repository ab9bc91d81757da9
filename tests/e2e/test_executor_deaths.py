"""Tests of executors that stop or die in mid-answer. Another executor continues, and no later page shows a text
twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.chat_api import (
    asked,
    ending_of,
    history_of,
    open_session,
    read_with_cuts,
    task_of,
    text_in,
    until_answered,
)
from tests.e2e.sdk import VERSIONS, SdkClients
from tests.e2e.sse import PACE, counted, text_of, words_for
from tests.e2e.stack import Child, Servers, Stack, bearer, new_session, new_user, open_stack
from tests.faults.scale import FULL
from tests.speed import limit

either_way = pytest.mark.parametrize(
    ("servers", "how"),
    [
        pytest.param(queue, how, id=f"{queue}-{how.name}")
        for queue in ("rabbitmq", "redis")
        for how in (signal.SIGTERM, signal.SIGKILL)
        if FULL or (queue == "rabbitmq") == (how is signal.SIGKILL)
    ],
    indirect=["servers"],
    scope="module",
)
"""Kills over RabbitMQ and stops over the Redis queue. In `make faults`, both over each queue."""
LEARN = '/tool add_understanding {"user_name":"Ada"}'
WORDS = words_for(3)
TWO_STEPS = f"/stream 10 5\n{LEARN}\n/then\n/stream {WORDS} {PACE}"
SECOND_STEP = counted(WORDS)
TWO_STEPS_TEXT = counted(10) + SECOND_STEP


@pytest.fixture
async def pair(servers: Servers, tmp_path: Path) -> AsyncIterator[Stack]:
    """A stack with two executors, which give up their turns half a second after SIGTERM."""
    async with open_stack(servers, tmp_path, executors=2, SHUTDOWN_GRACE="0.5", MAX_CRASHES="20") as stack:
        yield stack


def executor_of(stack: Stack, task: str) -> Child:
    """Returns the executor whose log names the task."""
    return next(child for child in stack.executors if task in child.log.read_text())


def turns_taken(executor: Child) -> int:
    return executor.log.read_text().count("turn runs")


@either_way
async def test_a_turn_whose_executor_ends_in_mid_answer_is_finished_by_another(
    pair: Stack, how: signal.Signals
) -> None:
    async with pair.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, TWO_STEPS) as stream:
            await stream.until(40)
            task = stream.task_id
            first = executor_of(pair, task)
            first.send(how)
            await asyncio.wait_for(stream.rest(), limit(30))
        assert stream.done
        assert ending_of(stream.events) == "completed"
        assert text_of(stream.events).endswith(SECOND_STEP)
        assert await first.ended() == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        assert (await task_of(client, task))["attempt"] == 2
        late = await read_with_cuts(client, task, [])
        assert text_of(late) == TWO_STEPS_TEXT
        assert text_in((await history_of(client, session))[-1]) == TWO_STEPS_TEXT


@either_way
async def test_every_sdk_client_survives_the_death_of_an_executor(
    pair: Stack, sdk_clients: SdkClients, how: signal.Signals
) -> None:
    """Each version reads the answer live. A page that is opened afterwards shows the whole answer once."""

    async def one_client(sdk: str, user: str, session: str) -> str:
        headers = bearer(user)
        accept = {"accept": "reset-step"} if sdk.startswith("7.") else {}
        story = [{"act": "open", "tab": "a", **accept}, {"act": "send", "tab": "a", "text": TWO_STEPS}]
        report = await sdk_clients.play(sdk, pair.base, session, story, headers=headers)
        assert report.faults == []
        tab = report.tabs["a"]
        assert tab.roles == ["user", "assistant"]
        assert tab.last["metadata"]["status"] == "completed"
        assert tab.text == TWO_STEPS_TEXT if accept else tab.text.endswith(SECOND_STEP)
        reloaded = [{"act": "open", "tab": "b", "hydrate": True}]
        report = await sdk_clients.play(sdk, pair.base, session, reloaded, headers=headers)
        assert report.faults == []
        assert report.tabs["b"].text == TWO_STEPS_TEXT
        task: str = tab.requests(0)[0]["headers"]["x-resumable-stream-id"]
        return task

    users = [(sdk, new_user(), new_session()) for sdk in VERSIONS]
    playing = [asyncio.create_task(one_client(*user)) for user in users]
    for _, user, session in users:
        async with pair.client(user) as client:
            await until_answered(client, session)
    ended, other = sorted(pair.executors, key=turns_taken, reverse=True)
    ended.send(how)
    tasks = await asyncio.wait_for(asyncio.gather(*playing), limit(60))
    moved = [task for task in tasks if task in ended.log.read_text()]
    assert len(moved) >= 2
    assert all(task in other.log.read_text() for task in moved)

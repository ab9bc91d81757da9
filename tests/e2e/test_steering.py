"""Messages for a running turn: with the AI SDK's own clients, and while executors are killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.chat_api import asked, followed, history_of, open_session, task_of
from tests.e2e.sdk import VERSIONS, Act, SdkClients
from tests.e2e.sse import PACE, Event, text_of, words_for
from tests.e2e.stack import Child, Servers, Stack, bearer, new_session, new_user, open_stack
from tests.faults.scale import FULL
from tests.speed import limit

LEARN = '/tool add_understanding {"user_name":"Ada"}'
WORDS = words_for(1.5)
PLAN = f"/stream {WORDS} {PACE}\n{LEARN}\n/then\n/say the plan"
SAID = "/say something else"
TRIED = VERSIONS if FULL else tuple(version for version in VERSIONS if version != "5.0.277")


@pytest.fixture(scope="module")
async def steered_stack(
    postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    servers = Servers(postgres_dsn, redis_dsn)
    async with open_stack(servers, tmp_path_factory.mktemp("stack"), MAX_CRASHES="20") as stack:
        yield stack


@pytest.mark.parametrize("sdk", TRIED)
async def test_every_sdk_client_reads_a_steered_stream_to_its_end(
    steered_stack: Stack, sdk_clients: SdkClients, sdk: str
) -> None:
    native = sdk.startswith("7.")
    session, headers = new_session(), bearer(new_user())
    page: Act = {"act": "open", "tab": "a", **({"accept": "steering-message"} if native else {})}
    acts: list[Act] = [
        page, {"act": "send", "tab": "a", "text": PLAN, "wait": False},
        {"act": "received", "tab": "a", "events": 8}, {"act": "steer", "text": SAID, "id": "s"},
        {"act": "settled", "tab": "a"},
        {**page, "tab": "b", "hydrate": True}, {"act": "send", "tab": "b", "text": "/say and on"},
    ]  # fmt: skip
    report = await sdk_clients.play(sdk, steered_stack.base, session, acts, headers=headers)
    assert report.faults == []
    assert report.results[3]["status"] == 202
    seen, reloaded = report.tabs["a"].last, report.tabs["b"].messages
    assert report.tabs["a"].text.endswith("something else")
    assert "the plan" not in report.tabs["a"].text
    assert [message["role"] for message in reloaded] == ["user", "assistant", "user", "assistant"]
    assert report.tabs["b"].text == "and on"
    kind = "steering-message" if native else "data-steering"
    kinds = ["step-start", "text", "dynamic-tool", kind, "step-start", "text"]
    for message in (seen, reloaded[1]):
        assert [part["type"] for part in message["parts"]] == kinds
        assert message["parts"][3] == shown_part(kind)


def shown_part(kind: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": SAID}]
    return {"type": kind, "id": "s", **({"parts": parts} if kind == "steering-message" else {"data": user(parts)})}


def user(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "s", "role": "user", "parts": parts}


async def killed(executor: Child) -> None:
    assert await executor.ended(limit(30)) == -signal.SIGKILL, executor.log_tail()


async def test_a_message_is_used_once_when_executors_are_killed_around_its_step(steered_stack: Stack) -> None:
    """The first one dies with the message taken in and not committed, the second one when it is committed."""
    stack = steered_stack
    first = await stack.start_executor(FAILPOINTS="before_steer_commit=1:kill")
    for other in stack.executors:
        if other is not first:
            other.send(signal.SIGKILL)
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, PLAN) as stream:
            await stream.until(8)
            steer = {"message": SAID, "message_id": "s", "on_busy": "steer"}
            answer = await client.post(f"/api/chat/sessions/{session}/stream", json=steer)
            assert answer.status_code == 202
            await killed(first)
            second = await stack.start_executor(FAILPOINTS="after_steer_commit=1:kill")
            assert (await client.get(f"/api/chat/sessions/{session}")).json()["queued"][0]["message_id"] == "s"
            await killed(second)
            assert (await client.get(f"/api/chat/sessions/{session}")).json()["queued"] == []
            await stack.start_executor()
            live = await asyncio.wait_for(stream.rest(), limit(60))
            task = stream.task_id
        async with followed(client, task) as again:
            replayed = await again.rest()
        for events in (live, replayed):
            assert steered_by(events) == ["s"]
            assert text_of(events).endswith("something else")
        assert (await task_of(client, task))["attempt"] == 3
        _, shown = await history_of(client, session)
        assert [part["type"] for part in shown["parts"]].count("data-steering") == 1
        rows = (await client.get(f"/api/chat/sessions/{session}")).json()["messages"]
        assert [row["role"] for row in rows] == ["user", "assistant", "tool", "user", "assistant"]
        assert (rows[3]["content"], rows[4]["content"]) == (SAID, "something else")
        repeated = await client.post(f"/api/chat/sessions/{session}/stream", json=steer)
        assert (repeated.status_code, repeated.json()["task_id"]) == (202, task)


def steered_by(events: list[Event]) -> list[str]:
    return [event.chunk["id"] for event in events if event.chunk["type"] == "data-steering"]

"""Tests of turns over HTTP, through queue, executor and Redis and back, with both turn queues."""

from __future__ import annotations

import asyncio
from itertools import combinations, pairwise
from typing import Any

import asyncpg
import httpx
import pytest

from tests.e2e.chat_api import (
    asked,
    assert_ids_rise,
    ending_of,
    followed,
    history_of,
    open_session,
    read_with_cuts,
    text_in,
)
from tests.e2e.conftest import over_both_queues
from tests.e2e.sse import PACE, counted, text_of, words_for
from tests.e2e.stack import Stack, new_user
from tests.faults.scale import FULL
from tests.speed import limit

pytestmark = over_both_queues
LONG = "/stream 100000 5"
WORDS = words_for(2)
SHORT = words_for(0.4)


async def test_twenty_sessions_at_once_reach_two_readers_each_exactly(stack: Stack) -> None:
    """Ten users have two sessions each. One of two readers of each turn disconnects and reconnects three times."""

    async def one_session(client: httpx.AsyncClient) -> None:
        session = await open_session(client)
        async with asked(client, session, "/stream 100 4") as steady:
            restless = asyncio.create_task(read_with_cuts(client, steady.task_id, [10, 35, 30]))
            await steady.rest()
        events = await restless
        assert text_of(steady.events) == text_of(events) == counted(100)
        assert_ids_rise(steady.events)
        assert_ids_rise(events)
        assert text_in((await history_of(client, session))[-1]) == counted(100)

    async def one_user() -> None:
        async with stack.client(new_user()) as client:
            await asyncio.gather(one_session(client), one_session(client))

    await asyncio.wait_for(asyncio.gather(*(one_user() for _ in range(10))), limit(60))


async def test_an_answer_of_fifty_thousand_deltas_replays_whole(stack: Stack) -> None:
    if stack.servers.rabbitmq and not FULL:
        pytest.skip("make faults: no delta passes a queue, so one of them is enough for make test")
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 50000") as stream:
            live = await stream.rest()
            task = stream.task_id
        assert text_of(live) == counted(50_000)
        replayed = await read_with_cuts(client, task, [])
        assert text_of(replayed) == counted(50_000)
        middle = live[len(live) // 2]
        async with followed(client, task, cursor=middle.id) as stream:
            rest = await stream.rest()
        assert text_of([*live[: len(live) // 2 + 1], *rest]) == counted(50_000)
        assert text_in((await history_of(client, session))[-1]) == counted(50_000)


async def test_turns_of_one_session_never_overlap_and_those_of_different_sessions_do(stack: Stack) -> None:
    async def one_session() -> list[str]:
        async with stack.client(new_user()) as client:
            session = await open_session(client)

            async def one_turn() -> str:
                async with asked(client, session, f"/stream {SHORT} {PACE}") as stream:
                    assert text_of(await stream.rest()) == counted(SHORT)
                    return stream.task_id

            tasks = await asyncio.gather(*(one_turn() for _ in range(4)))
            shown = await history_of(client, session)
            assert [message["role"] for message in shown] == ["user", "assistant"] * 4
            return tasks

    sessions = await asyncio.wait_for(asyncio.gather(*(one_session() for _ in range(5))), limit(60))
    spans = [await spans_of(stack, tasks) for tasks in sessions]
    for session in spans:
        assert all(later[0] >= earlier[1] for earlier, later in pairwise(sorted(session)))
    overlaps = [a[0] < b[1] and b[0] < a[1] for one, other in combinations(spans, 2) for a in one for b in other]
    assert any(overlaps)
    logs = [executor.log.read_text() for executor in stack.executors]
    assert all(any(task in log for tasks in sessions for task in tasks) for log in logs), "an executor had no work"


async def spans_of(stack: Stack, tasks: list[str]) -> list[tuple[Any, Any]]:
    """Returns the start and the end of each task, from its row."""
    connection = await asyncpg.connect(stack.servers.postgres)
    try:
        rows = await connection.fetch("SELECT started_at, finished_at FROM tasks WHERE id::text = ANY($1)", tasks)
    finally:
        await connection.close()
    assert len(rows) == len(tasks)
    return [(row["started_at"], row["finished_at"]) for row in rows]


async def test_a_message_to_a_busy_session_waits_for_its_turn(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, f"/stream {WORDS} {PACE}") as first:
            await first.until(5)
            async with asked(client, session, "/stream 3") as second:
                state = (await client.get(f"/api/chat/sessions/{session}")).json()
                assert state["active_stream"]["task_id"] == first.task_id
                assert len(state["queued"]) == 1
                await second.rest()
            await first.rest()
        assert [text_in(message) for message in await history_of(client, session)] == [
            f"/stream {WORDS} {PACE}", counted(WORDS), "/stream 3", counted(3),
        ]  # fmt: skip


async def test_a_message_that_must_not_wait_is_refused_and_names_the_running_task(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, LONG) as running:
            await running.until(5)
            path = f"/api/chat/sessions/{session}/stream"
            refused = await client.post(path, json={"message": "hello", "on_busy": "reject"})
            assert refused.status_code == 409
            assert refused.json()["code"] == "turn_in_progress"
            assert refused.json()["task_id"] == running.task_id
            assert (await client.post(f"/api/chat/sessions/{session}/cancel")).json()["cancelled"] is True
            await running.rest()
        assert len(await history_of(client, session)) == 2


async def test_an_interrupting_message_ends_the_running_turn_and_passes_those_that_wait(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with (
            asked(client, session, LONG) as running,
            asked(client, session, "/stream 2") as waiting,
        ):
            await running.until(5)
            async with asked(client, session, "/stream 3", on_busy="interrupt") as urgent:
                assert text_of(await urgent.rest()) == counted(3)
            assert ending_of(await running.rest()) == "cancelled"
            assert text_of(await waiting.rest()) == counted(2)
        questions = [text_in(message) for message in await history_of(client, session) if message["role"] == "user"]
        assert questions == [LONG, "/stream 3", "/stream 2"]


async def test_the_same_message_id_twenty_times_at_once_is_one_turn(stack: Stack) -> None:
    """Requests that exceed the limit of open streams are repeated, as clients do."""
    async with stack.client(new_user()) as client:
        session = await open_session(client)

        async def one() -> tuple[str, str]:
            for _ in range(200):
                async with asked(client, session, "/stream 20 5", message_id="the-one") as stream:
                    if stream.status == 200:
                        return stream.task_id, text_of(await stream.rest())
                    assert stream.status == 429
                    assert int(stream.response.headers["retry-after"]) >= 1
                await asyncio.sleep(0.05)  # less than Retry-After, in a bounded wait
            raise AssertionError("was never accepted")

        answers = await asyncio.wait_for(asyncio.gather(*(one() for _ in range(20))), limit(60))
        assert len(set(answers)) == 1
        assert answers[0][1] == counted(20)
        shown = await history_of(client, session)
        assert [(message["role"], text_in(message)) for message in shown] == [
            ("user", "/stream 20 5"), ("assistant", counted(20)),
        ]  # fmt: skip
        assert shown[0]["id"] == "the-one"


async def test_a_message_id_with_another_text_is_refused(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 2", message_id="the-one") as stream:
            await stream.rest()
        path = f"/api/chat/sessions/{session}/stream"
        refused = await client.post(path, json={"message": "/stream 3", "message_id": "the-one"})
        assert refused.status_code == 422
        assert refused.json()["code"] == "idempotency_key_reused"


async def test_the_sixth_running_turn_of_a_user_is_refused_and_others_are_not(stack: Stack) -> None:
    async with stack.client(new_user()) as client, stack.client(new_user()) as other:
        sessions = [await open_session(client) for _ in range(6)]
        for session in sessions[:5]:
            async with asked(client, session, LONG) as stream:
                assert stream.status == 200
        path = f"/api/chat/sessions/{sessions[5]}/stream"
        refused = await client.post(path, json={"message": "hello"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        async with asked(other, await open_session(other), "/stream 2") as stream:
            assert text_of(await stream.rest()) == counted(2)
        for session in sessions[:5]:
            assert (await client.post(f"/api/chat/sessions/{session}/cancel")).json()["cancelled"] is True
        async with asked(client, sessions[5], "/stream 2") as stream:
            assert text_of(await stream.rest()) == counted(2)

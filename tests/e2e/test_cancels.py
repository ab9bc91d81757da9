"""Tests of cancelled turns: running, waiting, at any moment, and with their session."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import httpx
import pytest

from tests.e2e.chat_api import asked, ending_of, followed, history_of, open_session, read_with_cuts, task_of, text_in
from tests.e2e.conftest import over_both_queues
from tests.e2e.sse import PACE, counted, text_of, types_of, words_for
from tests.e2e.stack import Stack, new_user
from tests.speed import limit

pytestmark = over_both_queues
WORDS = words_for(2)
LONG = "/stream 100000 5"
SHORT = f'/reason a b c\n/stream {words_for(0.2, 5)} 5\n/tool search_docs {{"query":"x"}}'


async def test_a_cancelled_turn_ends_cancelled_for_every_reader_and_keeps_its_text(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, LONG) as first, followed(client, first.task_id) as second:
            await asyncio.gather(first.until(10), second.until(6))
            answer = (await client.post(f"/api/chat/sessions/{session}/cancel")).json()
            assert answer == {"cancelled": True, "task_id": first.task_id}
            await asyncio.gather(first.rest(), second.rest())
            task = first.task_id
        assert ending_of(first.events) == ending_of(second.events) == "cancelled"
        assert "abort" in types_of(first.events)
        assert text_of(first.events) == text_of(second.events)
        assert (await task_of(client, task))["status"] == "cancelled"
        assert text_in((await history_of(client, session))[-1]) == text_of(first.events)
        again = (await client.post(f"/api/chat/sessions/{session}/cancel")).json()
        assert (again["cancelled"], again["reason"]) == (False, "no_active_task")


async def test_a_waiting_turn_that_is_cancelled_never_runs(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with (
            asked(client, session, f"/stream {WORDS} {PACE}") as running,
            asked(client, session, "/stream 7") as cancelled,
            asked(client, session, "/stream 3") as waiting,
        ):
            answer = (await client.post(f"/api/chat/tasks/{cancelled.task_id}/cancel")).json()
            assert answer["cancelled"] is True
            assert ending_of(await cancelled.rest()) == "cancelled"
            assert text_of(cancelled.events) == ""
            assert text_of(await running.rest()) == counted(WORDS)
            assert text_of(await waiting.rest()) == counted(3)
        answers = [text_in(m) for m in await history_of(client, session) if m["role"] == "assistant"]
        assert [text for text in answers if text] == [counted(WORDS), counted(3)]


async def test_a_session_deleted_during_a_turn_is_gone_with_its_streams(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, LONG) as running:
            await running.until(10)
            deleted = await client.delete(f"/api/chat/sessions/{session}")
            assert deleted.status_code == 204
            await running.rest()
            task = running.task_id
        assert ending_of(running.events) == "cancelled"
        assert running.done
        assert (await client.get(f"/api/chat/sessions/{session}")).status_code == 404
        assert (await client.get(f"/api/chat/tasks/{task}")).status_code == 404
        assert (await client.get(f"/api/chat/tasks/{task}/stream")).status_code == 404
        assert (await client.get(f"/api/chat/sessions/{session}/stream")).status_code == 204


async def cancel(client: httpx.AsyncClient, session: str) -> dict[str, Any]:
    """Stops the running turn, as a client does: again after 503, which a busy machine may cause."""
    async with asyncio.timeout(limit(30)):
        while (answer := await client.post(f"/api/chat/sessions/{session}/cancel")).status_code == 503:
            await asyncio.sleep(0.1)  # between two tries of a bounded wait
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


@pytest.mark.parametrize("seed", [1])
async def test_a_cancel_at_any_moment_wins_or_loses_everywhere(stack: Stack, seed: int) -> None:
    """The answer to the cancel, the stream, the task and the conversation must agree."""
    chance = Random(seed)

    async def one(client: httpx.AsyncClient, moment: float) -> None:
        session = await open_session(client)
        async with asked(client, session, SHORT) as stream:
            reading = asyncio.create_task(stream.rest())
            await asyncio.sleep(moment)  # anywhere between the acceptance and the end
            answer = await cancel(client, session)
            await reading
        ending = ending_of(stream.events)
        assert ending == ("cancelled" if answer["cancelled"] else "completed")
        assert (await task_of(client, stream.task_id))["status"] == ending
        assert text_of(await read_with_cuts(client, stream.task_id, [])) == text_of(stream.events)
        answers = [text_in(m) for m in await history_of(client, session) if m["role"] == "assistant"]
        assert "".join(answers) == text_of(stream.events)

    async def one_user() -> None:
        async with stack.client(new_user()) as client:
            await asyncio.gather(*(one(client, chance.random() * limit(0.6)) for _ in range(4)))

    await asyncio.wait_for(asyncio.gather(*(one_user() for _ in range(8))), limit(60))

"""I10: a message that is unreadable, or that the queue gave up, fails the waiting task that it names and no other."""

from __future__ import annotations

import json

import aio_pika

from backend.chat.keys import TURNS
from backend.chat.queue.redis_consumer import BODY
from backend.rabbitmq import Topology
from tests.e2e.chat_api import asked, ending_of, open_session, task_of
from tests.e2e.conftest import over_both_queues
from tests.e2e.sse import PACE, counted, text_of, types_of, words_for
from tests.e2e.stack import Servers, Stack, new_user
from tests.servers.redis import redis_client

WORDS = words_for(3)
pytestmark = over_both_queues


async def put(servers: Servers, body: bytes) -> None:
    """Puts any bytes into the queue of turns."""
    if servers.rabbitmq is None:
        async with redis_client(servers.redis) as redis:
            await redis.xadd(TURNS, {BODY: body})
        return
    topology = Topology()
    connection = await aio_pika.connect(servers.rabbitmq)
    async with connection, connection.channel() as channel:
        exchange = await channel.get_exchange(topology.execution, ensure=False)
        await exchange.publish(aio_pika.Message(body), topology.routing_key)


def unreadable(task: str) -> bytes:
    return json.dumps({"task_id": task, "session_id": "s", "schema": 99}).encode()


async def test_a_dead_letter_fails_a_waiting_task_but_not_a_running_one(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with (
            asked(client, session, f"/stream {WORDS} {PACE}") as running,
            asked(client, session, "/stream 3") as waiting,
        ):
            await running.until(3)
            for body in (b"\xff nothing", b"{}", unreadable(running.task_id), unreadable(waiting.task_id)):
                await put(stack.servers, body)
            assert ending_of(await waiting.rest()) == "failed"
            assert "error" in types_of(waiting.events)
            assert not running.done
            assert text_of(await running.rest()) == counted(WORDS)
        assert ending_of(running.events) == "completed"
        assert (await task_of(client, waiting.task_id))["error"]["code"] == "undeliverable"
        async with asked(client, session, "/stream 4") as after:
            assert text_of(await after.rest()) == counted(4)


async def test_a_dead_letter_of_an_ended_or_unknown_task_changes_nothing(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 3") as stream:
            await stream.rest()
        await put(stack.servers, unreadable(stream.task_id))
        await put(stack.servers, unreadable("8d1c2a4e-0000-4000-8000-000000000000"))
        async with (
            asked(client, session, f"/stream {WORDS} {PACE}") as busy,
            asked(client, session, "/stream 3") as last,
        ):
            await put(stack.servers, unreadable(last.task_id))
            assert ending_of(await last.rest()) == "failed"  # so the letters before it have been processed
            await busy.rest()
        assert (await task_of(client, stream.task_id))["status"] == "completed"


async def test_a_turn_of_an_unknown_task_is_acked(stack: Stack) -> None:
    """Such turns remain, for example, when a database was restored from a backup."""
    turn = {"task_id": "8d1c2a4e-0000-4000-8000-000000000001", "session_id": "8d1c2a4e-0000", "schema": 1}
    await put(stack.servers, json.dumps(turn).encode())
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 3") as stream:
            assert text_of(await stream.rest()) == counted(3)
    assert any("turn of an unknown task" in child.log.read_text() for child in stack.executors)

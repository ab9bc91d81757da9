"""I9: a turn is not started again because it is long or because its executor lost the connection to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.chat_api import asked, ending_of, open_session, read_with_cuts, task_of
from tests.e2e.sse import counted, text_of
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.scale import FULL
from tests.servers.rabbitmq import RabbitNode, rabbit_node
from tests.speed import limit


def starts_of(stack: Stack, task: str) -> int:
    return sum(child.log.read_text().count(f"turn runs  task_id={task}") for child in stack.children)


@pytest.fixture
async def short_timeout_broker(short_path: Path) -> AsyncIterator[RabbitNode]:
    """A broker that takes a message back from its consumer after a minute."""
    async with rabbit_node(short_path, "consumer_timeout = 60000\n") as node:
        yield node


@pytest.mark.timeout(400)
@pytest.mark.skipif(not FULL, reason="make faults: the broker checks its timeout once a minute")
async def test_a_turn_longer_than_the_brokers_consumer_timeout_is_started_once(
    postgres_dsn: str, redis_dsn: str, short_timeout_broker: RabbitNode, tmp_path: Path
) -> None:
    servers = Servers(postgres_dsn, redis_dsn, short_timeout_broker.dsn)
    async with open_stack(servers, tmp_path, executors=2) as stack, stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 1800 100") as stream:
            async with asyncio.timeout(limit(300)):
                assert text_of(await stream.rest()) == counted(1800)
        assert (await task_of(client, stream.task_id))["attempt"] == 1
        assert starts_of(stack, stream.task_id) == 1
    record("I9", "a turn of 180 s over a broker with a consumer_timeout of 60 s: 1 start, completed")


async def test_a_turn_continues_in_its_executor_when_the_broker_connections_are_closed(
    postgres_dsn: str, redis_dsn: str, private_rabbitmq: RabbitNode, tmp_path: Path
) -> None:
    """The broker delivers the turn to the other executor as well, which changes nothing."""
    servers = Servers(postgres_dsn, redis_dsn, private_rabbitmq.dsn)
    async with open_stack(servers, tmp_path, executors=2) as stack, stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 200 40") as stream:
            await stream.until(10)
            await private_rabbitmq.close_all_connections()
            async with asyncio.timeout(limit(60)):
                assert text_of(await stream.rest()) == counted(200)
        assert ending_of(stream.events) == "completed"
        assert (await task_of(client, stream.task_id))["attempt"] == 1
        assert starts_of(stack, stream.task_id) == 1
        async with asked(client, session, "/stream 3") as after:
            assert text_of(await after.rest()) == counted(3)
        assert text_of(await read_with_cuts(client, stream.task_id, [])) == counted(200)
    record("I9", "all broker connections closed in mid-turn: 1 start, completed")

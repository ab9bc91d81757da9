"""RabbitMQ blocks publishers because of its memory, or one of its nodes is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from backend.chat.queue.rabbitmq import open_rabbit_turns
from backend.chat.queue.turn_queue import TurnQueue
from backend.errors import ConfigError, Unavailable
from backend.rabbitmq import ANSWER_LIMIT, Topology
from backend.rabbitmq_address import parse_rabbitmq_url
from tests.e2e.chat_api import asked, ending_of, open_session
from tests.e2e.stack import Servers, new_user, open_stack, ready
from tests.integration.turn_queues import RabbitRig, new_turn, published, soon, until, until_healthy
from tests.plain_http import http_client
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.rabbitmq import RabbitNode
from tests.speed import limit


@asynccontextmanager
async def alarm(node: RabbitNode) -> AsyncIterator[None]:
    """A memory alarm, as long as the block lasts."""
    await node.eval("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000})")
    try:
        yield
    finally:
        await node.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.4)")


async def test_a_blocked_publisher_says_so_once_and_keeps_its_connection(
    private_rabbitmq: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with FaultProxy.before(private_rabbitmq.dsn) as proxy:
        rig = RabbitRig(private_rabbitmq.dsn, proxy)
        async with rig.open("a") as queue:
            await until_healthy(queue)
            connections = proxy.accepted
            with caplog.at_level(logging.WARNING, "backend"):
                async with alarm(private_rabbitmq):
                    await until(partial(_refuses, queue))
                    for _ in range(20):
                        with pytest.raises(Unavailable):
                            await soon(queue.publish(new_turn()))
                    assert queue.trouble == "blocked"
                    assert not queue.healthy
                await until_healthy(queue)
            await soon(queue.publish(new_turn()))
            assert queue.trouble is None
            assert proxy.accepted == connections
        await rig.remove()
    told = [record for record in caplog.records if record.name == "backend.chat.queue.rabbitmq"]
    (line,) = [record for record in told if "blocked" in record.message and record.levelno == logging.WARNING]
    assert "alarm" in line.error  # type: ignore[attr-defined]


async def test_turns_are_handed_back_and_acked_while_the_broker_blocks(private_rabbitmq: RabbitNode) -> None:
    async with FaultProxy.before(private_rabbitmq.dsn) as proxy:
        rig = RabbitRig(private_rabbitmq.dsn, proxy)
        async with rig.open("a") as queue, queue.consume(2) as deliveries:
            for turn in (new_turn(), new_turn()):
                await soon(queue.publish(turn))
            first, second = await soon(anext(deliveries)), await soon(anext(deliveries))
            async with alarm(private_rabbitmq):
                await until(partial(_refuses, queue))
                assert await soon(first.hand_back(), within=limit(ANSWER_LIMIT))
                await soon(second.ack())
                again = await soon(anext(deliveries))
                assert again.turn == first.turn
                await soon(again.ack())
        await rig.remove()


async def test_a_block_ends_with_its_connection_and_names_its_host(
    private_rabbitmq: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with FaultProxy.before(private_rabbitmq.dsn) as a, FaultProxy.before(private_rabbitmq.dsn) as b:
        rig = RabbitRig(private_rabbitmq.dsn, a)
        dsn = f"amqp://guest:guest@127.0.0.1:{a.port},127.0.0.1:{b.port}/"
        await a.switch(Mode.DOWN)
        with caplog.at_level(logging.INFO, "backend"):
            async with open_rabbit_turns(dsn, rig.topology) as queue, alarm(private_rabbitmq):
                for down, up in ((a, b), (b, a)):
                    await up.switch(Mode.PASS)
                    await down.switch(Mode.DOWN)
                    await until(partial(_not_blocked, queue))
                    await until(partial(_refuses, queue))
                    await until(partial(_blocked, queue))
        await rig.remove()
    told = [record for record in caplog.records if "blocked publishing" in record.getMessage()]
    blocks = [record for record in told if record.levelno == logging.WARNING]
    assert [vars(record)["at"] for record in blocks] == [f"127.0.0.1:{b.port}", f"127.0.0.1:{a.port}"]
    assert [record.levelname for record in told] == ["WARNING", "INFO"] * 2
    assert f"127.0.0.1:{b.port}" in {getattr(record, "node", None) for record in caplog.records}


async def _refuses(queue: TurnQueue) -> bool:
    """Publishes a turn. The broker may still confirm the first one that a connection publishes during an alarm."""
    try:
        await soon(queue.publish(new_turn()))
    except Unavailable:
        return True
    return False


async def _blocked(queue: TurnQueue) -> bool:
    return queue.trouble == "blocked"


async def _not_blocked(queue: TurnQueue) -> bool:
    return queue.healthy and queue.trouble is None


async def test_a_message_during_the_alarm_is_answered_after_it_and_readiness_says_blocked(
    private_rabbitmq: RabbitNode, postgres_dsn: str, redis_dsn: str, tmp_path: Path
) -> None:
    servers = Servers(postgres_dsn, redis_dsn, private_rabbitmq.dsn)
    async with open_stack(servers, tmp_path) as stack, stack.client(new_user()) as http, asyncio.timeout(limit(90)):
        (api,) = stack.apis
        async with alarm(private_rabbitmq):
            async with asked(http, await open_session(http), "/say Hello") as stream:
                await _says_blocked(api.url)
                async with asyncio.timeout(limit(2 * ANSWER_LIMIT)):  # the alarm lasts until there is an answer
                    cancelled = await http.post(f"/api/chat/tasks/{stream.task_id}/cancel")
                assert cancelled.status_code in (200, 202)
            waiting = await open_session(http)
            posted = asyncio.create_task(_ask(http, waiting))
            await _says_blocked(api.url)
        assert await posted == "completed"
        await ready(api)


async def _ask(http: httpx.AsyncClient, session: str) -> str:
    async with asked(http, session, "/say Hello") as stream:
        await stream.rest()
    return ending_of(stream.events)


async def _says_blocked(base: str) -> None:
    async with http_client(timeout=limit(20)) as http:

        async def blocked() -> bool:
            answer = (await http.get(f"{base}/api/chat/health/ready")).json()
            return "turns (blocked)" in answer.get("detail", "") and answer["reasons"] == {"turns": "blocked"}

        await until(blocked)


async def test_another_host_is_used_when_one_is_away(private_rabbitmq: RabbitNode) -> None:
    async with FaultProxy.before(private_rabbitmq.dsn) as a, FaultProxy.before(private_rabbitmq.dsn) as b:
        rig = RabbitRig(private_rabbitmq.dsn, a)
        dsn = f"amqp://guest:guest@127.0.0.1:{a.port},127.0.0.1:{b.port}/"
        async with open_rabbit_turns(dsn, rig.topology) as queue, queue.consume(1) as deliveries:
            for down, up in ((a, b), (b, a)):
                await up.switch(Mode.PASS)
                await down.switch(Mode.DOWN)
                turn = new_turn()
                await until(partial(published, queue, turn))
                delivery = await soon(anext(deliveries))
                assert delivery.turn == turn
                await delivery.ack()
        await rig.remove()


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("amqp://u:p@a:1,b:2,c/v", [("a", 1), ("b", 2), ("c", None)]),
        ("amqps://u:p%2C@a/v?cacertfile=x&verify=verify_none", [("a", None)]),
        ("amqp://u:p@a/v,amqp://u:p@b/v", [("a", None), ("b", None)]),
        ("amqp://u:p@a/v; amqp://u:p@b/v", [("a", None), ("b", None)]),
    ],
)
def test_an_address_may_have_several_hosts(dsn: str, hosts: list[tuple[str, int | None]]) -> None:
    urls = parse_rabbitmq_url(dsn)
    assert [(url.host, url.port) for url in urls] == hosts
    assert {url.path for url in urls} == {"/v"}
    assert {url.user for url in urls} == {"u"}


@pytest.mark.parametrize(
    "dsn", ["", "http://a", "a:5672", "amqp://u:se/cret@a", "amqp://u:secret@a:port,b/", "amqp://"]
)
async def test_an_address_that_cannot_be_read_is_a_wrong_setting(dsn: str) -> None:
    with pytest.raises(ConfigError, match=r"^RABBITMQ_URL: ") as refused:
        async with open_rabbit_turns(dsn, Topology()):
            pass
    assert "cret" not in str(refused.value)

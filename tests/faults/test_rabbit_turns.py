"""Faults of the turn queue that only RabbitMQ can have, on a private node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest

from backend.chat.queue.rabbitmq import open_rabbit_turns
from backend.chat.queue.rabbitmq_consumer import CHECK_EVERY, message_of
from backend.chat.queue.turn_queue import TurnQueue
from backend.errors import Unavailable
from backend.rabbitmq import ANSWER_LIMIT, HEARTBEAT, BrokerConnection, SessionRunner
from tests.faults.rig.losses import unreadable_queue
from tests.integration.turn_queues import RabbitRig, new_turn, published, rig_for, soon, until, until_healthy
from tests.servers.proxy import Mode
from tests.servers.rabbitmq import RabbitNode
from tests.speed import limit


@pytest.fixture
async def rig(private_rabbitmq: RabbitNode) -> AsyncIterator[RabbitRig]:
    async with rig_for("rabbitmq", private_rabbitmq.dsn) as rig:
        assert isinstance(rig, RabbitRig)
        yield rig


async def test_publishing_without_a_binding_raises_unavailable_and_restores_the_binding(rig: RabbitRig) -> None:
    async with rig.open("a") as queue:
        async with rig.channel() as channel:
            await channel.queue_unbind(rig.topology.queue, rig.topology.execution, rig.topology.routing_key)
        with pytest.raises(Unavailable):
            await soon(queue.publish(new_turn()))
        await until(lambda: published(queue, new_turn()))


async def test_publishing_without_an_exchange_raises_unavailable_and_restores_the_exchange(rig: RabbitRig) -> None:
    async with rig.open("a") as queue:
        async with rig.channel() as channel:
            await channel.exchange_delete(rig.topology.execution)
        with pytest.raises(Unavailable):
            await soon(queue.publish(new_turn()))
        await until(lambda: published(queue, new_turn()))


async def test_a_consumer_without_permission_is_never_healthy(rig: RabbitRig, private_rabbitmq: RabbitNode) -> None:
    async with rig.open("a") as queue, queue.consume(1):
        await until_healthy(queue)
        async with unreadable_queue(private_rabbitmq, rig.topology.queue):
            await until(lambda: _unhealthy(queue))
            enough = asyncio.get_running_loop().time() + 2
            while asyncio.get_running_loop().time() < enough:  # while it retries
                assert not queue.healthy
                await asyncio.sleep(0)
        await until_healthy(queue)


async def _unhealthy(queue: TurnQueue) -> bool:
    return not queue.healthy


async def test_a_publish_in_flight_raises_unavailable_when_the_library_closes_the_connection(
    private_rabbitmq: RabbitNode,
) -> None:
    """The library closes the connection when the broker has closed it, and raises a bare Exception in waiting
    writers."""
    brokers: asyncio.Queue[BrokerConnection] = asyncio.Queue()

    async def session(broker: BrokerConnection) -> None:
        brokers.put_nowait(broker)
        await broker.lost.wait()

    runner = asyncio.create_task(SessionRunner(private_rabbitmq.dsn, "a", session).run())
    try:
        broker = await soon(brokers.get())
        sent = [asyncio.create_task(broker.publish("", "nobody", message_of(b"", None))) for _ in range(50)]
        await asyncio.sleep(0)  # lets them begin
        assert broker.connection.transport is not None
        await broker.connection.transport.connection.close(None)
        errors = await soon(asyncio.gather(*sent, return_exceptions=True))
    finally:
        runner.cancel()
        await asyncio.wait({runner})
    assert {type(error) for error in errors} == {Unavailable}


async def test_a_deleted_queue_is_declared_again_and_has_exactly_one_consumer(rig: RabbitRig) -> None:
    async with rig.open("a") as queue, queue.consume(2) as deliveries:
        for _ in range(3):
            async with rig.channel() as channel:
                await channel.queue_delete(rig.topology.queue)
            turn = new_turn()
            await until(partial(published, queue, turn))
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await delivery.ack()
        assert await rig.consumers() == 1


async def test_each_executor_has_one_consumer_after_all_connections_were_closed(
    rig: RabbitRig, private_rabbitmq: RabbitNode
) -> None:
    async with rig.open("a") as a, rig.open("b") as b, a.consume(2) as first, b.consume(2):
        for _ in range(2):
            await private_rabbitmq.close_all_connections()
            await until_healthy(a)
            await until_healthy(b)
        await until(lambda: _consumers_are(rig, 2))
    async with rig.open("c") as c, c.consume(1) as deliveries:
        await until(lambda: _consumers_are(rig, 1))
        turn = new_turn()
        await c.publish(turn)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        await delivery.ack()
    assert await anext(first, None) is None


async def _consumers_are(rig: RabbitRig, count: int) -> bool:
    return await rig.consumers() == count


async def test_only_the_first_publish_waits_the_whole_limit_for_a_broker_that_hangs(rig: RabbitRig) -> None:
    async with rig.open("a") as queue:
        await rig.proxy.switch(Mode.BLACKHOLE)
        with pytest.raises(Unavailable):
            await soon(queue.publish(new_turn()), limit(ANSWER_LIMIT + 2))
        with pytest.raises(Unavailable):
            await soon(queue.publish(new_turn()), limit(ANSWER_LIMIT / 2))
        await rig.proxy.switch(Mode.PASS)
        await until(lambda: published(queue, new_turn()), limit(30))


async def test_concurrent_publishes_confirm_each_turn(rig: RabbitRig) -> None:
    turns = [new_turn() for _ in range(200)]
    async with rig.open("a") as queue, queue.consume(50) as deliveries:
        await soon(asyncio.gather(*(queue.publish(turn) for turn in turns)))
        seen = []
        for _ in turns:
            delivery = await soon(anext(deliveries))
            seen.append(delivery.turn)
            await delivery.ack()
    assert sorted(turn.task_id for turn in seen) == sorted(turn.task_id for turn in turns)


async def test_a_turn_whose_consumers_die_too_often_goes_to_the_dead_letters(rig: RabbitRig) -> None:
    rig.topology = replace(rig.topology, delivery_limit=2)
    turn, marker = new_turn(), new_turn()
    async with rig.open("a") as queue, queue.consume(1) as deliveries, queue.dead_turns() as letters:
        await queue.publish(turn)
        for _ in range(3):
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await _blink(rig, queue)
            await delivery.ack()  # the connection is gone, so this only frees the slot
        letter = await soon(anext(letters))
        assert (letter.task_id, letter.reason) == (turn.task_id, "delivery_limit")
        await letter.ack()
        await queue.publish(marker)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == marker
        await delivery.ack()


async def test_a_turn_may_be_handed_back_any_number_of_times(rig: RabbitRig) -> None:
    """A long outage of a store thus creates no dead letters."""
    rig.topology = replace(rig.topology, delivery_limit=2)
    turn = new_turn()
    async with rig.open("a") as queue, queue.consume(1) as deliveries:
        await queue.publish(turn)
        for _ in range(10):
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            assert await soon(delivery.hand_back())
        delivery = await soon(anext(deliveries))
        await delivery.ack()


async def test_a_queue_declared_with_other_arguments_is_used_with_a_warning(
    rig: RabbitRig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.channel() as channel:
        await channel.queue_declare(rig.topology.queue, durable=True, arguments={"x-queue-type": "quorum"})
    with caplog.at_level(logging.WARNING):
        async with rig.open("a") as queue, queue.consume(1) as deliveries:
            assert queue.healthy
            await queue.publish(new_turn())
            await (await soon(anext(deliveries))).ack()
    assert "queue has other arguments than declared" in caplog.messages


AT_ONCE = limit(CHECK_EVERY / 2)


async def test_slots_of_a_lost_connection_are_free_again_at_once(rig: RabbitRig) -> None:
    async with rig.open("a") as queue, queue.consume(4) as deliveries:
        for _ in range(20):
            await queue.publish(new_turn())
        stale = [await soon(anext(deliveries)) for _ in range(4)]
        await _blink(rig, queue)
        held = []
        for delivery in stale:
            await delivery.ack()
            held.append(await soon(anext(deliveries), AT_ONCE))
        fifth = asyncio.ensure_future(anext(deliveries))
        for _ in range(12):
            assert not fifth.done()
            await held.pop(0).ack()
            held.append(await soon(fifth, AT_ONCE))
            fifth = asyncio.ensure_future(anext(deliveries))
        for delivery in held:
            await delivery.ack()
        await (await soon(fifth)).ack()


async def test_a_full_consumer_leaves_turns_to_others_after_a_lost_connection(rig: RabbitRig) -> None:
    async with rig.open("a") as a, a.consume(3) as deliveries:
        for _ in range(3):
            await a.publish(new_turn())
        stale = [await soon(anext(deliveries)) for _ in range(3)]
        turns = {delivery.turn for delivery in stale}
        await _blink(rig, a)
        await stale.pop().ack()
        first = await soon(anext(deliveries), AT_ONCE)  # in the only free slot
        async with rig.open("b") as b, b.consume(8) as others:
            rest = [await soon(anext(others)) for _ in range(2)]
            assert {delivery.turn for delivery in rest} == turns - {first.turn}
        for delivery in (first, *stale, *rest):
            await delivery.ack()


async def _blink(rig: RabbitRig, queue: TurnQueue) -> None:
    """Resets all connections and waits until they are open again."""

    async def lost() -> bool:
        return not queue.healthy

    await rig.proxy.switch(Mode.RESET)
    await until(lost)
    await rig.proxy.switch(Mode.PASS)
    await until_healthy(queue)


async def test_a_turn_is_handed_back_only_when_the_broker_confirms_it(rig: RabbitRig) -> None:
    """Bytes that are written to a connection which the broker has given up look sent, but never arrive."""
    async with rig.open("a") as queue, queue.consume(1) as deliveries:
        await queue.publish(new_turn())
        delivery = await soon(anext(deliveries))
        await rig.proxy.switch(Mode.BLACKHOLE)
        assert not await soon(delivery.hand_back())
        await rig.proxy.switch(Mode.PASS)
        await (await soon(anext(deliveries), limit(30))).ack()


async def test_a_turn_that_a_silent_executor_holds_comes_to_another(rig: RabbitRig) -> None:
    """The broker learns of an executor that is frozen or cut off only by its silence: its connection stays open."""
    turn = new_turn()
    async with (
        open_rabbit_turns(rig.dsn, rig.topology) as other,
        rig.open("a") as queue,
        queue.consume(2) as deliveries,
    ):
        await other.publish(turn)
        assert (await soon(anext(deliveries))).turn == turn
        await rig.proxy.switch(Mode.BLACKHOLE)
        async with other.consume(2) as others:
            again = await soon(anext(others), limit(3 * HEARTBEAT + 3))
            assert again.turn == turn
            await again.ack()
        await rig.proxy.switch(Mode.PASS)

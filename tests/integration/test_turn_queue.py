"""Tests of turns and cancel requests on the queue, over both brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backend.chat.queue.turn_queue import TurnQueue
from backend.errors import Unavailable
from backend.ids import TaskId
from tests.integration.turn_queues import Rig, new_turn, rig_for, soon, until, until_healthy
from tests.servers.proxy import Mode
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode
from tests.speed import limit

AT_ONCE = limit(2)


@pytest.fixture(params=["rabbitmq", "redis"])
def broker(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The kind and the address of a server that tests share, so they must not stop it."""
    if request.param == "rabbitmq":
        return "rabbitmq", request.getfixturevalue("rabbitmq_dsn")
    return "redis", request.getfixturevalue("private_redis").dsn


@pytest.fixture
async def rig(broker: tuple[str, str]) -> AsyncIterator[Rig]:
    async with rig_for(*broker) as rig:
        yield rig


@pytest.fixture(params=["rabbitmq", "redis"])
def hurtable(request: pytest.FixtureRequest) -> tuple[str, RabbitNode | RedisNode]:
    """A server that may be killed, and its kind."""
    return request.param, request.getfixturevalue(f"private_{request.param}")


async def test_a_turn_arrives_once_and_is_gone_after_its_ack(rig: Rig) -> None:
    turn, marker = new_turn(), new_turn()
    async with rig.open("a") as queue:
        await queue.publish(turn)
        async with queue.consume(5) as deliveries:
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await delivery.ack()
    async with rig.open("b") as queue, queue.consume(5) as deliveries:
        await queue.publish(marker)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == marker
        await delivery.ack()


async def test_turns_arrive_in_the_order_of_their_publishing(rig: Rig) -> None:
    turns = [new_turn() for _ in range(20)]
    async with rig.open("a") as queue, queue.consume(3) as deliveries:
        for turn in turns:
            await queue.publish(turn)
        for turn in turns:
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await delivery.ack()


async def test_a_consumer_never_holds_more_turns_than_it_has_slots(rig: Rig) -> None:
    async with rig.open("a") as a, rig.open("b") as b, a.consume(2) as first:
        for _ in range(4):
            await a.publish(new_turn())
        held = [await soon(anext(first)) for _ in range(2)]
        async with b.consume(2) as second:
            others = [await soon(anext(second)) for _ in range(2)]  # so the first one did not have them
            third = asyncio.ensure_future(anext(first))
            fresh = new_turn()
            await a.publish(fresh)
            await held[0].ack()
            delivery = await soon(third)
            assert delivery.turn == fresh
            for open_one in (held[1], *others, delivery):
                await open_one.ack()


async def test_a_turn_that_is_handed_back_comes_again_to_whoever_is_free(rig: Rig) -> None:
    turn = new_turn()
    async with rig.open("a") as a, rig.open("b") as b:
        async with a.consume(1) as deliveries:
            await a.publish(turn)
            delivery = await soon(anext(deliveries))
        async with b.consume(1) as deliveries:
            assert await delivery.hand_back()
            again = await soon(anext(deliveries))
            assert again.turn == turn
            await again.ack()


async def test_a_turn_that_cannot_be_handed_back_says_so(rig: Rig) -> None:
    async with rig.open("a") as queue, queue.consume(1) as deliveries:
        await queue.publish(new_turn())
        delivery = await soon(anext(deliveries))
        await rig.proxy.switch(Mode.DOWN)
        assert not await soon(delivery.hand_back())
        assert not await delivery.hand_back()
        await rig.proxy.switch(Mode.PASS)
        again = await soon(anext(deliveries))
        assert again.turn == delivery.turn
        assert await again.hand_back()


async def test_a_turn_in_the_hands_of_an_executor_that_died_comes_to_another(rig: Rig) -> None:
    turn = new_turn()
    async with rig.open("b") as b:
        async with rig.open("a") as a, a.consume(1) as deliveries:
            await a.publish(turn)
            await soon(anext(deliveries))
        async with b.consume(1) as deliveries:
            again = await soon(anext(deliveries))
            assert again.turn == turn
            await again.ack()


async def test_a_turn_that_nobody_took_from_the_iterator_comes_to_another(rig: Rig) -> None:
    turns = [new_turn() for _ in range(3)]
    async with rig.open("a") as a, rig.open("b") as b:
        for turn in turns:
            await a.publish(turn)
        async with a.consume(3) as deliveries:
            await (await soon(anext(deliveries))).ack()
        async with b.consume(3) as deliveries:
            rest = [await soon(anext(deliveries)) for _ in range(2)]
            assert {delivery.turn for delivery in rest} == set(turns[1:])
            for delivery in rest:
                await delivery.ack()


async def test_leaving_stops_the_taking_and_what_is_open_can_still_be_acked(rig: Rig) -> None:
    turn, later, marker = new_turn(), new_turn(), new_turn()
    async with rig.open("b") as b:
        async with rig.open("a") as a:
            async with a.consume(2) as deliveries:
                await a.publish(turn)
                delivery = await soon(anext(deliveries))
            await a.publish(later)
            async with b.consume(2) as others:
                taken = await soon(anext(others))
                assert taken.turn == later
                await taken.ack()
            await delivery.ack()
        async with b.consume(2) as others:
            await b.publish(marker)
            taken = await soon(anext(others))
            assert taken.turn == marker
            await taken.ack()


async def test_the_iteration_ends_for_whoever_still_waits_when_the_context_is_left(rig: Rig) -> None:
    async with rig.open("a") as queue:
        async with queue.consume(1) as deliveries:
            waiting = asyncio.ensure_future(anext(deliveries, None))
            await asyncio.sleep(0)
        assert await soon(waiting) is None


async def test_an_unreadable_message_goes_to_the_dead_letters_and_the_next_one_is_taken(rig: Rig) -> None:
    turn = new_turn()
    async with rig.open("a") as queue, queue.consume(1) as deliveries:
        for body in (b"", b"{", b"[]", b'{"task_id": 7}', b'{"task_id": "t-2", "session_id": "s", "schema": 2}'):
            await rig.put(body)
        await queue.publish(turn)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        await delivery.ack()
        async with queue.dead_turns() as letters:
            letter = await soon(anext(letters))
            assert (letter.task_id, letter.reason) == ("t-2", "unreadable")
            await letter.ack()


async def test_settling_twice_changes_nothing(rig: Rig) -> None:
    first, second = new_turn(), new_turn()
    async with rig.open("a") as queue, queue.consume(1) as deliveries:
        await queue.publish(first)
        delivery = await soon(anext(deliveries))
        await delivery.ack()
        assert not await delivery.hand_back()
        await queue.publish(second)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == second
        await delivery.ack()


async def test_a_cancel_request_reaches_every_listener(rig: Rig) -> None:
    async with (
        rig.open("a") as a,
        rig.open("b") as b,
        a.cancel_requests() as first,
        a.cancel_requests() as second,
        b.cancel_requests() as third,
    ):
        for name in ("t-1", "t-2"):
            await b.publish_cancel(TaskId(name))
        for wishes in (first, second, third):
            assert [await soon(anext(wishes)) for _ in range(2)] == ["t-1", "t-2"]


async def test_a_cancel_request_that_nobody_hears_is_no_error(rig: Rig) -> None:
    async with rig.open("a") as queue:
        await queue.publish_cancel(TaskId("t-1"))
        await rig.proxy.switch(Mode.DOWN)
        await soon(queue.publish_cancel(TaskId("t-1")))


async def test_publishing_while_the_broker_is_away_fails_at_once_and_works_when_it_is_back(rig: Rig) -> None:
    turn = new_turn()
    async with rig.open("a") as queue:
        await queue.publish(turn)
        await rig.proxy.switch(Mode.DOWN)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await soon(queue.publish(new_turn()), AT_ONCE)
        await rig.proxy.switch(Mode.PASS)
        await until(lambda: _published(queue))
        assert queue.healthy


async def _published(queue: TurnQueue) -> bool:
    try:
        await queue.publish(new_turn())
    except Unavailable:
        return False
    return True


async def test_a_queue_can_be_opened_while_the_broker_is_away(rig: Rig) -> None:
    await rig.proxy.switch(Mode.DOWN)
    async with rig.open("a") as queue:
        with pytest.raises(Unavailable):
            await soon(queue.publish(new_turn()), AT_ONCE)
        async with queue.consume(1) as deliveries:
            assert not queue.healthy
            await rig.proxy.switch(Mode.PASS)
            await until_healthy(queue)
            turn = new_turn()
            await queue.publish(turn)
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await delivery.ack()


async def test_consuming_and_listening_go_on_after_the_connections_were_lost(rig: Rig) -> None:
    async with rig.open("a") as queue, queue.consume(3) as deliveries, queue.cancel_requests() as wishes:
        for mode in (Mode.RESET, Mode.DOWN):
            await rig.proxy.switch(mode)
            await until(lambda: _unhealthy(queue))
            await rig.proxy.switch(Mode.PASS)
            await until_healthy(queue)
            turn = new_turn()
            await queue.publish(turn)
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await delivery.ack()
            await queue.publish_cancel(turn.task_id)
            assert await soon(anext(wishes)) == turn.task_id


async def _unhealthy(queue: TurnQueue) -> bool:
    return not queue.healthy


async def test_no_turn_in_hand_is_lost_or_too_many_when_the_connections_are_lost(rig: Rig) -> None:
    async with rig.open("a") as queue, queue.consume(2) as deliveries:
        turns = [new_turn() for _ in range(6)]
        for turn in turns:
            await queue.publish(turn)
        seen = []
        held = [await soon(anext(deliveries)) for _ in range(2)]
        await rig.proxy.switch(Mode.RESET)
        await rig.proxy.switch(Mode.PASS)
        await until_healthy(queue)
        third = asyncio.ensure_future(anext(deliveries))
        await asyncio.wait({third}, timeout=0.2)
        assert not third.done()
        for delivery in held:  # no error, though their connection is gone
            seen.append(delivery.turn)
            await delivery.ack()
        while set(seen) != set(turns):
            delivery = await soon(third)
            seen.append(delivery.turn)
            await delivery.ack()
            third = asyncio.ensure_future(anext(deliveries))
        third.cancel()


@pytest.mark.timeout(180)
async def test_everything_goes_on_after_the_server_was_killed_and_started_again(
    hurtable: tuple[str, RabbitNode | RedisNode],
) -> None:
    kind, server = hurtable
    async with (
        rig_for(kind, server.dsn) as rig,
        rig.open("a") as queue,
        queue.consume(2) as deliveries,
        queue.cancel_requests() as wishes,
    ):
        before, between = new_turn(), new_turn()
        await queue.publish(before)
        held = await soon(anext(deliveries))
        await queue.publish(between)
        await server.kill()
        await until(lambda: _unhealthy(queue))
        await server.start()
        await until_healthy(queue, limit(60))
        await held.ack()
        seen = set()
        while between not in seen:
            delivery = await soon(anext(deliveries))
            seen.add(delivery.turn)
            await delivery.ack()
        assert seen <= {before, between}
        await queue.publish_cancel(between.task_id)
        assert await soon(anext(wishes)) == between.task_id

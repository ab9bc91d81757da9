"""What Redis alone can do to a turn queue, on a server of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from backend.chat.models import Turn
from backend.chat.redis_deliveries import GROUP
from backend.chat.redis_turns import open_redis_turns
from backend.chat.turns import encode_turn
from backend.errors import Unavailable
from backend.ids import ExecutorId
from backend.redis import ANSWER_LIMIT, open_redis
from tests.integration.turn_queues import RedisRig, new_turn, rig_for, soon, until
from tests.servers.proxy import Mode
from tests.servers.redis import RedisNode
from tests.speed import limit


@pytest.fixture
async def rig(private_redis: RedisNode) -> AsyncIterator[RedisRig]:
    async with rig_for("redis", private_redis.dsn) as rig:
        assert isinstance(rig, RedisRig)
        yield rig


async def _pending(rig: RedisRig) -> dict[str, int]:
    """How many entries each consumer of the turns has in hand."""
    async with rig.client() as redis:
        consumers = await redis.xinfo_consumers(rig.keys.turns, GROUP)
    return {consumer["name"].decode(): consumer["pending"] for consumer in consumers}


async def _entries(rig: RedisRig) -> int:
    async with rig.client() as redis:
        return int(await redis.xlen(rig.keys.turns))


async def test_consuming_goes_on_after_redis_was_emptied(rig: RedisRig) -> None:
    async with rig.open("a") as queue, queue.consume(2) as deliveries:
        await queue.publish(new_turn())
        lost = await soon(anext(deliveries))
        async with rig.client() as redis:
            await redis.flushall()
        turn = new_turn()
        await queue.publish(turn)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        await delivery.ack()
        assert not await lost.hand_back()  # nothing left to hand back: whoever had it publishes it anew
        assert await _entries(rig) == 0


async def test_a_turn_whose_delivery_was_lost_on_the_way_is_taken_all_the_same(rig: RedisRig) -> None:
    async with rig.open("b") as publisher, rig.open("a") as queue, queue.consume(2) as deliveries:
        for _ in range(3):
            await rig.proxy.switch(Mode.LOSE_REPLIES)
            lost = rig.proxy.lost
            turn = new_turn()
            async with rig.client() as redis:
                await redis.xadd(rig.keys.turns, {b"d": encode_turn(turn)})

            async def swallowed(before: int = lost) -> bool:
                return rig.proxy.lost > before

            await until(swallowed)
            await rig.proxy.switch(Mode.PASS)
            delivery = await soon(anext(deliveries))
            assert delivery.turn == turn
            await delivery.ack()
        assert publisher.healthy


async def test_a_turn_that_was_taken_from_a_sleeper_is_its_new_owners_to_settle(rig: RedisRig) -> None:
    turn = new_turn()
    async with rig.open("a") as a, rig.open("b") as b, a.consume(1) as first, b.consume(1) as second:
        await a.publish(turn)
        taken_by_a, waiting_b = asyncio.ensure_future(anext(first)), asyncio.ensure_future(anext(second))
        await soon(asyncio.wait({taken_by_a, waiting_b}, return_when=asyncio.FIRST_COMPLETED))
        sleeper, other = (taken_by_a, waiting_b) if taken_by_a.done() else (waiting_b, taken_by_a)
        rig.dead.add(ExecutorId("a" if sleeper is taken_by_a else "b"))
        again = await soon(other)
        assert again.turn == turn
        assert again.redelivered
        rig.dead.clear()
        assert not await (await sleeper).hand_back()
        await (await sleeper).ack()
        assert sum((await _pending(rig)).values()) == 1
        await again.ack()
        assert await _entries(rig) == 0


async def test_a_turn_stays_with_a_living_executor_however_long_it_takes(rig: RedisRig) -> None:
    async with rig.open("a") as a, rig.open("b") as b, a.consume(1) as first:
        await a.publish(new_turn())
        delivery = await soon(anext(first))
        async with b.consume(1) as second:
            other = asyncio.ensure_future(anext(second))
            looked = rig.looks

            async def looked_again() -> bool:
                return rig.looks >= looked + 6

            await until(looked_again)  # several rounds of looking for the dead
            assert not other.done()
            other.cancel()
        await delivery.ack()


async def test_two_heirs_never_get_the_same_turn(rig: RedisRig) -> None:
    turns = {new_turn() for _ in range(20)}
    async with rig.open("dead") as dead, dead.consume(20) as deliveries:
        for turn in turns:
            await dead.publish(turn)
        for _ in turns:
            await soon(anext(deliveries))
    async with rig.open("b") as b, rig.open("c") as c, b.consume(20) as first, c.consume(20) as second:
        seen: list[Turn] = []
        takers = {asyncio.ensure_future(anext(first)): first, asyncio.ensure_future(anext(second)): second}
        async with asyncio.timeout(limit(20)):
            while len(seen) < len(turns):
                done, _ = await asyncio.wait(takers, return_when=asyncio.FIRST_COMPLETED)
                for taker in done:
                    source = takers.pop(taker)
                    delivery = taker.result()
                    seen.append(delivery.turn)
                    await delivery.ack()
                    takers[asyncio.ensure_future(anext(source))] = source
        for taker in takers:
            taker.cancel()
        assert len(seen) == len(set(seen))
        assert set(seen) == turns
        assert "dead" not in await _pending(rig)


async def test_an_heir_with_few_slots_takes_a_dead_executors_turns_one_by_one(rig: RedisRig) -> None:
    turns = {new_turn() for _ in range(5)}
    async with rig.open("dead") as dead, dead.consume(5) as deliveries:
        for turn in turns:
            await dead.publish(turn)
        for _ in turns:
            await soon(anext(deliveries))
    seen = set()
    async with rig.open("b") as b, b.consume(1) as deliveries:
        for _ in turns:
            delivery = await soon(anext(deliveries))
            seen.add(delivery.turn)
            assert (await _pending(rig))["b"] <= 2
            await delivery.ack()
    assert seen == turns


async def test_turns_are_inherited_even_when_the_answer_that_brings_them_is_lost(rig: RedisRig) -> None:
    turn = new_turn()
    async with rig.open("dead") as dead:
        async with dead.consume(1):
            pass  # leaving runs the script: it is loaded from now on
        async with dead.consume(1) as deliveries:
            await dead.publish(turn)
            await soon(anext(deliveries))
    lost: list[int] = []

    async def dies_as_it_is_asked(ids: Sequence[ExecutorId]) -> set[ExecutorId]:
        if "dead" in ids and not lost:
            lost.append(rig.proxy.lost)
            await rig.proxy.switch(Mode.LOSE_REPLIES)
        return rig.dead.intersection(ids)

    async def swallowed() -> bool:
        return bool(lost) and rig.proxy.lost > lost[0]

    async with (
        open_redis(rig.through_proxy, pool_size=4) as quick,
        open_redis_turns(rig.dsn, quick, ExecutorId("heir"), dies_as_it_is_asked, rig.keys) as heir,
        heir.consume(1) as deliveries,
    ):
        await until(swallowed)
        await rig.proxy.switch(Mode.PASS)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        assert delivery.redelivered
        await delivery.ack()
        assert "dead" not in await _pending(rig)


async def test_nothing_of_an_executor_that_left_in_order_stays_behind(rig: RedisRig) -> None:
    async with rig.open("a") as queue:
        async with queue.consume(1) as deliveries:
            await queue.publish(new_turn())
            await (await soon(anext(deliveries))).ack()
        assert await _pending(rig) == {}
        assert await _entries(rig) == 0


async def test_an_ack_that_could_not_be_sent_is_no_error_and_the_turn_comes_again(rig: RedisRig) -> None:
    async with rig.open("a") as queue, queue.consume(1) as deliveries:
        turn = new_turn()
        await queue.publish(turn)
        delivery = await soon(anext(deliveries))
        await rig.proxy.switch(Mode.DOWN)
        await delivery.ack()
        await rig.proxy.switch(Mode.PASS)
        again = await soon(anext(deliveries))
        assert again.turn == turn
        assert again.redelivered
        await again.ack()
        assert await _entries(rig) == 0


async def test_a_server_that_hangs_counts_as_away(rig: RedisRig) -> None:
    async with rig.open("a") as queue:
        await queue.publish(new_turn())
        await rig.proxy.switch(Mode.BLACKHOLE)
        with pytest.raises(Unavailable):
            await soon(queue.publish(new_turn()), limit(ANSWER_LIMIT + 2))
        await rig.proxy.switch(Mode.PASS)
        await queue.publish(new_turn())

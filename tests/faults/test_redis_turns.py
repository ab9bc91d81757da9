"""Faults of the turn queue that only Redis can have, on a private server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from backend.chat.models import Turn
from backend.chat.queue.redis import open_redis_turns
from backend.chat.queue.redis_consumer import GROUP, Consumer, QueueEntry, RedisDelivery
from backend.chat.queue.turn_queue import encode_turn
from backend.errors import Unavailable
from backend.ids import ExecutorId
from backend.redis import ANSWER_LIMIT, open_redis
from tests.integration.turn_queues import RedisRig, new_turn, rig_for, soon, until
from tests.servers.proxy import Mode
from tests.servers.redis import RedisNode, redis_client
from tests.speed import limit


@pytest.fixture
async def rig(private_redis: RedisNode) -> AsyncIterator[RedisRig]:
    async with rig_for("redis", private_redis.dsn) as rig:
        assert isinstance(rig, RedisRig)
        yield rig


async def _pending(rig: RedisRig) -> dict[str, int]:
    """Returns the number of pending entries of each consumer of the turns."""
    async with rig.client() as redis:
        consumers = await redis.xinfo_consumers(rig.keys.turns, GROUP)
    return {consumer["name"].decode(): consumer["pending"] for consumer in consumers}


async def _entries(rig: RedisRig) -> int:
    async with rig.client() as redis:
        return int(await redis.xlen(rig.keys.turns))


async def test_consuming_continues_after_redis_was_emptied(rig: RedisRig) -> None:
    async with rig.open("a") as queue, queue.consume(2) as deliveries:
        await queue.publish(new_turn())
        lost = await soon(anext(deliveries))
        async with redis_client(rig.dsn) as redis:
            await redis.flushall()
        turn = new_turn()
        await queue.publish(turn)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        await delivery.ack()
        assert not await lost.hand_back()  # the entry no longer exists, so the caller must publish the turn again
        assert await _entries(rig) == 0


async def test_a_turn_is_delivered_again_when_the_reply_with_it_was_lost(rig: RedisRig) -> None:
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


async def test_only_the_new_owner_can_settle_a_turn_that_it_took_over(rig: RedisRig) -> None:
    turn = new_turn()
    async with rig.open("a") as a, rig.open("b") as b, a.consume(1) as first, b.consume(1) as second:
        await a.publish(turn)
        taken_by_a, waiting_b = asyncio.ensure_future(anext(first)), asyncio.ensure_future(anext(second))
        await soon(asyncio.wait({taken_by_a, waiting_b}, return_when=asyncio.FIRST_COMPLETED))
        old_owner, other = (taken_by_a, waiting_b) if taken_by_a.done() else (waiting_b, taken_by_a)
        rig.dead.add(ExecutorId("a" if old_owner is taken_by_a else "b"))
        again = await soon(other)
        assert again.turn == turn
        rig.dead.clear()
        assert not await (await old_owner).hand_back()
        await (await old_owner).ack()
        assert sum((await _pending(rig)).values()) == 1
        await again.ack()
        assert await _entries(rig) == 0


async def test_a_turn_stays_with_a_live_executor_however_long_it_takes(rig: RedisRig) -> None:
    async with rig.open("a") as a, rig.open("b") as b, a.consume(1) as first:
        await a.publish(new_turn())
        delivery = await soon(anext(first))
        async with b.consume(1) as second:
            other = asyncio.ensure_future(anext(second))
            before = rig.looks

            async def checked_several_times() -> bool:
                return rig.looks >= before + 6

            await until(checked_several_times)  # for dead executors
            assert not other.done()
            other.cancel()
        await delivery.ack()


async def test_two_executors_never_take_over_the_same_turn(rig: RedisRig) -> None:
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


async def test_an_executor_with_one_slot_takes_over_a_dead_executors_turns_one_by_one(rig: RedisRig) -> None:
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


async def test_a_turn_that_was_settled_while_it_was_read_again_is_not_delivered_twice(
    rig: RedisRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_turn(), new_turn()
    async with rig.open("dead") as dead, dead.consume(1) as deliveries:
        await dead.publish(first)
        await soon(anext(deliveries))
    read, held, settled = Consumer._read_entries, asyncio.Event(), asyncio.Event()

    async def read_late(consumer: Consumer[RedisDelivery], after: bytes | str) -> list[QueueEntry]:
        entries = await read(consumer, after)
        if after != ">" and entries:
            held.set()
            await settled.wait()
        return entries

    monkeypatch.setattr(Consumer, "_read_entries", read_late)
    async with rig.open("b") as b, b.consume(2) as deliveries:
        delivery = await soon(anext(deliveries))
        assert delivery.turn == first
        await soon(held.wait())
        await delivery.ack()
        settled.set()
        await b.publish(second)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == second
        await delivery.ack()
        assert await _pending(rig) == {"b": 0}


async def test_turns_are_taken_over_even_when_the_reply_with_them_is_lost(rig: RedisRig) -> None:
    turn = new_turn()
    async with rig.open("dead") as dead:
        async with dead.consume(1):
            pass  # leaving the block runs the script, which stays loaded
        async with dead.consume(1) as deliveries:
            await dead.publish(turn)
            await soon(anext(deliveries))
    lost: list[int] = []

    async def loses_replies_when_asked(ids: Sequence[ExecutorId]) -> set[ExecutorId]:
        if "dead" in ids and not lost:
            lost.append(rig.proxy.lost)
            await rig.proxy.switch(Mode.LOSE_REPLIES)
        return rig.dead.intersection(ids)

    async def swallowed() -> bool:
        return bool(lost) and rig.proxy.lost > lost[0]

    async with (
        open_redis(rig.through_proxy, pool_size=4) as quick,
        open_redis_turns(rig.dsn, quick, ExecutorId("successor"), loses_replies_when_asked, rig.keys) as successor,
        successor.consume(1) as deliveries,
    ):
        await until(swallowed)
        await rig.proxy.switch(Mode.PASS)
        delivery = await soon(anext(deliveries))
        assert delivery.turn == turn
        await delivery.ack()
        assert "dead" not in await _pending(rig)


async def test_an_executor_that_stops_cleanly_leaves_nothing_behind(rig: RedisRig) -> None:
    async with rig.open("a") as queue:
        async with queue.consume(1) as deliveries:
            await queue.publish(new_turn())
            await (await soon(anext(deliveries))).ack()
        assert await _pending(rig) == {}
        assert await _entries(rig) == 0


async def test_an_ack_that_cannot_be_sent_raises_nothing_and_the_turn_is_delivered_again(rig: RedisRig) -> None:
    async with rig.open("a") as queue, queue.consume(1) as deliveries:
        turn = new_turn()
        await queue.publish(turn)
        delivery = await soon(anext(deliveries))
        await rig.proxy.switch(Mode.DOWN)
        await delivery.ack()
        await rig.proxy.switch(Mode.PASS)
        again = await soon(anext(deliveries))
        assert again.turn == turn
        await again.ack()
        assert await _entries(rig) == 0


async def test_publishing_to_a_server_that_hangs_raises_unavailable(rig: RedisRig) -> None:
    async with rig.open("a") as queue:
        await queue.publish(new_turn())
        await rig.proxy.switch(Mode.BLACKHOLE)
        with pytest.raises(Unavailable):
            await soon(queue.publish(new_turn()), limit(ANSWER_LIMIT + 2))
        await rig.proxy.switch(Mode.PASS)
        await queue.publish(new_turn())

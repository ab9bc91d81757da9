"""What moves the leader of a store from one host to another: an operator's command, or the death of the leader."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from random import Random

from backend.rabbitmq import Topology
from tests.bed.bed import Bed
from tests.bed.rabbitmq import HostedRabbit
from tests.servers.redis import RedisNode

Repair = Callable[[], Awaitable[None]]
Move = Callable[[Bed, Random], Awaitable[tuple[float, Repair]]]
"""Returns the monotonic time at which the new leader was known, and what gives the store its redundancy back."""


async def command_redis(bed: Bed, chance: Random) -> tuple[float, Repair]:
    await bed.redis.fail_over(_some_key(chance))
    return time.monotonic(), bed.redis.heal


async def kill_redis(bed: Bed, chance: Random) -> tuple[float, Repair]:
    await bed.redis.promote_after(_some_key(chance), RedisNode.kill)
    return time.monotonic(), bed.redis.heal


async def command_postgres(bed: Bed, chance: Random) -> tuple[float, Repair]:
    return await bed.postgres.fail_over(kill=False), bed.postgres.rejoin


async def kill_postgres(bed: Bed, chance: Random) -> tuple[float, Repair]:
    return await bed.postgres.fail_over(kill=True), bed.postgres.rejoin


async def command_rabbitmq(bed: Bed, chance: Random) -> tuple[float, Repair]:
    queue, leader = await _turns(bed)
    await bed.rabbitmq.lead(queue, chance.choice([node for node in bed.rabbitmq.nodes if node is not leader]))
    return time.monotonic(), bed.rabbitmq.start


async def kill_rabbitmq(bed: Bed, chance: Random) -> tuple[float, Repair]:
    queue, leader = await _turns(bed)
    others = [node for node in bed.rabbitmq.nodes if node is not leader]
    await leader.kill()
    await bed.rabbitmq.until_leader(queue, others[0], set(others))
    return time.monotonic(), bed.rabbitmq.start


MOVES: dict[str, dict[str, Move]] = {
    "redis": {"command": command_redis, "kill": kill_redis},
    "postgres": {"command": command_postgres, "kill": kill_postgres},
    "rabbitmq": {"command": command_rabbitmq, "kill": kill_rabbitmq},
}
"""By store, and by how its leader moves."""


def _some_key(chance: Random) -> str:
    return f"chat:lock:{{{chance.getrandbits(64):x}}}"


async def _turns(bed: Bed) -> tuple[str, HostedRabbit]:
    """Returns the queue of turns and its leader."""
    queue = Topology().queue
    return queue, (await bed.rabbitmq.leaders())[queue]

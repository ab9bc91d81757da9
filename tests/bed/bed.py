"""Starts the stores of the test bed, and the hosts on which the product's processes will run.

async with open_bed(folder) as bed, open_rig(folder, bed.stores, network=bed.network, proxied=False, ...) as rig:
    await bed.hosts["redis-1"].partition("both")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bed.postgres import PostgresPair, postgres_pair
from tests.bed.rabbitmq import RabbitCluster, rabbit_cluster
from tests.faults.rig.supervisor import Stores
from tests.servers.hosts import Host, Network, open_hosts
from tests.servers.redis_cluster import RedisCluster, redis_cluster

APIS = EXECUTORS = 3
NUMBERS = {"api": APIS, "executor": EXECUTORS, "rabbitmq": 3, "redis": 6, "postgres": 2}
"""How many hosts there are of each kind. The rig takes the first ones, in this order."""


@dataclass(frozen=True, slots=True)
class Bed:
    """The hosts by name, such as redis-1, and the stores that run on them."""

    network: Network
    hosts: Mapping[str, Host]
    postgres: PostgresPair
    redis: RedisCluster
    rabbitmq: RabbitCluster

    @property
    def stores(self) -> Stores:
        return Stores(self.postgres, self.redis, self.rabbitmq)


@asynccontextmanager
async def open_bed(folder: Path) -> AsyncIterator[Bed]:
    """Starts everything with its files in `folder`, which every user must be able to enter. Ends all of it when the
    block is left."""
    names = [f"{kind}-{n}" for kind, number in NUMBERS.items() for n in range(1, number + 1)]
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(open_hosts(len(names), names))
        hosts = dict(zip(names, network.hosts, strict=True))

        def of(kind: str) -> list[Host]:
            return [host for name, host in hosts.items() if name.startswith(f"{kind}-")]

        (folder / "redis").mkdir()
        postgres, redis, rabbitmq = await asyncio.gather(
            stack.enter_async_context(postgres_pair(folder, of("postgres"))),
            stack.enter_async_context(redis_cluster(folder / "redis", hosts=of("redis"))),
            stack.enter_async_context(rabbit_cluster(folder, of("rabbitmq"))),
        )
        yield Bed(network, hosts, postgres, redis, rabbitmq)

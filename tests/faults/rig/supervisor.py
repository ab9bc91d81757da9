"""Starts the whole system for a fault test, keeps it running, and repairs it.

async with open_rig(folder, stores, apis=2, executors=3, history=history) as rig:
    await rig.executors[0].kill()
    await rig.heal()
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.migrating import migrate
from tests.e2e.stack import Servers, Stack
from tests.faults.rig.history import History
from tests.faults.rig.model import model_settings
from tests.faults.rig.slots import ProcessSlot
from tests.servers.hosts import Network
from tests.servers.postgres import PostgresNode
from tests.servers.proxy import FaultProxy
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode
from tests.servers.redis_cluster import RedisCluster

STORM_SETTINGS = {
    "MAX_CRASHES": "1000", "MAX_RUNNING_TURNS": "1000", "MAX_WAITING_TURNS": "1000", "MAX_OPEN_STREAMS": "1000",
    "MAX_NEW_SESSIONS": "100000",
}  # fmt: skip
"""Limits so high that no turn fails because of its crashes, and no user is refused for too many turns or streams."""


class Node(Protocol):
    """A store that tests can kill and freeze."""

    @property
    def dsn(self) -> str: ...
    async def start(self) -> None: ...
    async def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The three private stores of a test."""

    postgres: PostgresNode
    redis: RedisNode | RedisCluster
    rabbitmq: RabbitNode

    @property
    def all(self) -> dict[str, Node]:
        return {"postgres": self.postgres, "redis": self.redis, "rabbitmq": self.rabbitmq}

    def is_running(self, name: str) -> bool:
        return self.postgres.server.running if name == "postgres" else getattr(self, name).running

    async def empty_redis(self) -> None:
        """Kills Redis and starts it without its data."""
        await self.redis.lose_all()


@dataclass(frozen=True, slots=True)
class Rig:
    """The whole system. `apis` and `executors` are slots whose processes may end and be replaced."""

    stores: Stores
    stack: Stack
    history: History
    apis: Sequence[ProcessSlot]
    executors: Sequence[ProcessSlot]

    @property
    def slots(self) -> list[ProcessSlot]:
        return [*self.apis, *self.executors]

    @property
    def bases(self) -> list[str]:
        """The URLs of the API processes, including those that are dead at the moment."""
        return [slot.url for slot in self.apis]

    def slot_of(self, executor_id: str) -> ProcessSlot:
        """Returns the slot of the executor that owns tasks under this id."""
        return next(slot for slot in self.executors if slot.executor_id == executor_id)

    async def heal(self) -> None:
        """Restarts, thaws and reconnects everything. Returns when all API and executor processes are ready."""
        for name, node in self.stores.all.items():
            node.resume()
            if not self.stores.is_running(name):
                await node.start()
        for slot in self.slots:
            await slot.heal()
            await slot.enable_restarts()
        await self.ready()

    async def ready(self) -> None:
        await asyncio.gather(*(slot.ready() for slot in self.slots))


@asynccontextmanager
async def open_rig(
    folder: Path,
    stores: Stores,
    *,
    apis: int = 2,
    executors: int = 3,
    history: History | None = None,
    started: bool = True,
    network: Network | None = None,
    proxied: bool = True,
    **settings: str,
) -> AsyncIterator[Rig]:
    """Migrates the database and starts everything. `settings` are environment variables. With `started=False` the slots
    stay empty until the test calls `ProcessSlot.start` and `Rig.ready`. With a `network`, each slot has a host of its
    own there, in their order: first the APIs. Without `proxied` they reach the stores at their own addresses."""
    history = history or History(folder / "history.jsonl")
    await migrate(stores.postgres.dsn)
    async with AsyncExitStack() as cleanup:
        here = network.gateway if network else "127.0.0.1"
        model = await cleanup.enter_async_context(model_settings(here))
        servers = Servers(*(stores.all[name].dsn for name in ("postgres", "redis", "rabbitmq")))
        stack = Stack(servers, folder, {"LOG_FORMAT": "console", **model, **settings})
        slots = []
        for number, kind in enumerate(["api"] * apis + ["executor"] * executors):
            proxies = {
                name: await cleanup.enter_async_context(FaultProxy.before(node.dsn, host=here))
                for name, node in (stores.all if proxied else {}).items()
            }
            slots.append(ProcessSlot(stack, kind, proxies, history, network.hosts[number] if network else None))
        rig = Rig(stores, stack, history, slots[:apis], slots[apis:])
        cleanup.push_async_callback(_stop, rig)
        if started:
            for slot in slots:
                slot.start()
            await rig.ready()
        yield rig


async def _stop(rig: Rig) -> None:
    for node in rig.stores.all.values():
        node.resume()
    for slot in rig.slots:
        await slot.close()
        await slot.heal()
    with contextlib.suppress(ProcessLookupError):
        await rig.stack.stop()

"""Opens the whole system for a fault test, keeps it running, and makes it whole again.

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
from tests.faults.rig.seats import Seat
from tests.servers.postgres import PostgresNode
from tests.servers.proxy import FaultProxy
from tests.servers.rabbitmq import RabbitNode
from tests.servers.redis import RedisNode

STORM_SETTINGS = {
    "MAX_CRASHES": "1000", "MAX_RUNNING_TURNS": "1000", "MAX_WAITING_TURNS": "1000", "MAX_OPEN_STREAMS": "1000",
}  # fmt: skip
"""In a storm of kills a turn may honestly fail for its crashes, and a user may have too much at once; not here."""


class Node(Protocol):
    """What all stores can suffer."""

    dsn: str

    async def start(self) -> None: ...
    async def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """The three stores, all of them the test's own."""

    postgres: PostgresNode
    redis: RedisNode
    rabbitmq: RabbitNode

    @property
    def all(self) -> dict[str, Node]:
        return {"postgres": self.postgres, "redis": self.redis, "rabbitmq": self.rabbitmq}

    def is_running(self, name: str) -> bool:
        return self.rabbitmq.running if name == "rabbitmq" else getattr(self, name).server.running

    async def empty_redis(self) -> None:
        """Kills Redis and starts it without its data."""
        await self.redis.lose_all()


@dataclass(frozen=True, slots=True)
class Rig:
    """The whole system. `apis` and `executors` are seats: the processes in them come and go."""

    stores: Stores
    stack: Stack
    history: History
    apis: Sequence[Seat]
    executors: Sequence[Seat]

    @property
    def seats(self) -> list[Seat]:
        return [*self.apis, *self.executors]

    @property
    def bases(self) -> list[str]:
        """Where the API processes listen, also those that are dead just now."""
        return [seat.url for seat in self.apis]

    def seat_of(self, executor_id: str) -> Seat:
        """Where the executor sits that owns tasks under this id."""
        return next(seat for seat in self.executors if seat.executor_id == executor_id)

    async def heal(self) -> None:
        """Everything runs, nothing is frozen, every way is whole. Returns when all our processes are ready."""
        for name, node in self.stores.all.items():
            node.resume()
            if not self.stores.is_running(name):
                await node.start()
        for seat in self.seats:
            await seat.heal()
            await seat.revive()
        await self.ready()

    async def ready(self) -> None:
        await asyncio.gather(*(seat.ready() for seat in self.seats))


@asynccontextmanager
async def open_rig(
    folder: Path,
    stores: Stores,
    *,
    apis: int = 2,
    executors: int = 3,
    history: History | None = None,
    occupied: bool = True,
    **settings: str,
) -> AsyncIterator[Rig]:
    """Migrates the database and starts everything; `settings` are names of the environment. With `occupied` false the
    seats stay empty until the test calls `Seat.occupy` and `Rig.ready`."""
    history = history or History(folder / "history.jsonl")
    await migrate(stores.postgres.dsn)
    async with AsyncExitStack() as cleanup:
        model = await cleanup.enter_async_context(model_settings())
        servers = Servers(*(stores.all[name].dsn for name in ("postgres", "redis", "rabbitmq")))
        stack = Stack(servers, folder, {"LOG_FORMAT": "console", **model, **settings})
        seats = []
        for kind in ["api"] * apis + ["executor"] * executors:
            ways = {
                name: await cleanup.enter_async_context(FaultProxy.before(node.dsn))
                for name, node in stores.all.items()
            }
            seats.append(Seat(stack, kind, ways, history))
        rig = Rig(stores, stack, history, seats[:apis], seats[apis:])
        cleanup.push_async_callback(_stop, rig)
        if occupied:
            for seat in seats:
                seat.occupy()
            await rig.ready()
        yield rig


async def _stop(rig: Rig) -> None:
    for node in rig.stores.all.values():
        node.resume()
    for seat in rig.seats:
        await seat.close()
        await seat.heal()
    with contextlib.suppress(ProcessLookupError):
        await rig.stack.stop()

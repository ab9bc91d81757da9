"""The parts of the platform in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from examples.agent_generator.deliveries import Deliveries
from examples.agent_platform.blocks.block import Services
from examples.agent_platform.calls import Calls
from examples.agent_platform.database import open_database
from examples.agent_platform.graphs import Graphs
from examples.agent_platform.model import open_model
from examples.agent_platform.options import PlatformOptions
from examples.agent_platform.runner import Runner
from examples.agent_platform.runs import Runs
from examples.agent_platform.scheduler import Scheduler
from examples.agent_platform.schedules import Schedules
from examples.agent_platform.shelf import StoredShelf
from examples.agent_platform.web import open_web


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Platform:
    options: PlatformOptions
    callback_base: str | None
    """The prefix that a callback URL must have."""
    graphs: Graphs
    runs: Runs
    runner: Runner
    calls: Calls
    schedules: Schedules
    scheduler: Scheduler
    now: Callable[[], datetime]


@asynccontextmanager
async def open_platform(
    options: PlatformOptions,
    deliveries: Deliveries | None = None,
    callback_base: str | None = None,
    now: Callable[[], datetime] = utc_now,
) -> AsyncIterator[Platform]:
    """Opens the platform and goes on with the runs of an earlier process. Raises FolderInUse."""
    limits = options.limits
    async with (
        open_database(options.data) as database,
        open_web(options.private_networks) as web,
        open_model(options) as model,
    ):
        services = Services(StoredShelf(database), web, model, now)
        graphs, runs = Graphs(database, limits), Runs(database, limits)
        schedules = Schedules(database, limits)
        runner = Runner(runs, graphs, services, deliveries, limits)
        calls = Calls(database, services, limits)
        scheduler = Scheduler(schedules, runner, now)
        await runner.resume()
        scheduling = asyncio.create_task(scheduler.run(), name="scheduler")
        try:
            yield Platform(options, callback_base, graphs, runs, runner, calls, schedules, scheduler, now)
        finally:
            scheduling.cancel()
            await asyncio.gather(scheduling, return_exceptions=True)
            await runner.stop()
            await calls.stop()

"""One executor process, from its settings to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import uvloop

from backend.config import Settings, load_settings, warn_of_unknown_settings
from backend.errors import ConfigError, Unavailable
from backend.garbage import resume_collector
from backend.ids import ExecutorId
from backend.logs import configure_logs
from backend.resources import Resources, open_resources
from executor.crew import Crew
from executor.generator import open_generator
from executor.health import serve_health
from executor.heartbeat import Heartbeat
from executor.llm.model import open_model
from executor.llm.titles import open_title_model
from executor.lone_turn import LoneTurn
from executor.mcp import open_mcp
from executor.tools import open_toolbox
from executor.worker import Worker

logger = logging.getLogger(__name__)


async def execute(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT. Raises ConfigError, or Unavailable when a server is away at the start."""
    stop = asyncio.Event()
    _set_on_signals(stop)
    async with _crew_at_work(settings) as (house, crew), serve_health(house, settings.executor_port, crew.metrics):
        away = [name for name, there in (await house.state()).items() if not there]
        if away:
            logger.warning("executor has started and waits", extra={"for": ", ".join(away), "executor_id": house.me})
        else:
            logger.info("executor is ready", extra={"executor_id": house.me, "model": crew.model_name})
        await Worker(house, crew).run(stop)
    logger.info("executor has stopped")


async def execute_alone(settings: Settings, lone: LoneTurn) -> None:
    """Works until the turn is settled, or SIGTERM or SIGINT. Raises as `execute`."""
    _set_on_signals(lone.settled)
    async with _crew_at_work(settings, lone.me) as (house, crew):
        await Worker(house, crew, lone).run(lone.settled)


def _set_on_signals(stop: asyncio.Event) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)


@asynccontextmanager
async def _crew_at_work(settings: Settings, me: ExecutorId | None = None) -> AsyncIterator[tuple[Resources, Crew]]:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_resources(settings, me))
        model = await stack.enter_async_context(open_model(settings))
        title_model = await stack.enter_async_context(open_title_model(settings))
        generator = await stack.enter_async_context(open_generator(settings))
        toolbox = open_toolbox(settings, generator, await stack.enter_async_context(open_mcp(settings)))
        resume_collector()
        yield house, Crew(settings, model, title_model, toolbox, Heartbeat(house))


def run(arguments: Sequence[str]) -> None:
    """Works as the environment says: for one turn alone when there are arguments. Exits with one line for what an
    operator can mend."""
    try:
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format)
        warn_of_unknown_settings()
        lone = LoneTurn.parse(arguments) if arguments else None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(execute(settings) if lone is None else execute_alone(settings, lone))
    except (ConfigError, Unavailable) as error:
        sys.exit(f"executor: {error}")
    if lone is not None and not lone.dealt_with:
        sys.exit(os.EX_TEMPFAIL)

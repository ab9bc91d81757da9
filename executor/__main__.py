"""`python -m executor`: one executor process, configured by the environment."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from contextlib import AsyncExitStack

import uvloop

from backend.config import Settings, load_settings, warn_of_unknown_settings
from backend.errors import ConfigError, Unavailable
from backend.logs import configure_logs
from backend.resources import open_resources
from executor.crew import Crew
from executor.health import serve_health
from executor.heartbeat import Heartbeat
from executor.llm.model import open_model
from executor.llm.titles import open_title_model
from executor.tools import open_toolbox
from executor.worker import Worker

logger = logging.getLogger(__name__)


async def execute(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT. Raises ConfigError, or Unavailable when a server is away at the start."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(open_resources(settings))
        model = await stack.enter_async_context(open_model(settings))
        title_model = await stack.enter_async_context(open_title_model(settings))
        crew = Crew(settings, model, title_model, open_toolbox(settings), Heartbeat(house))
        await stack.enter_async_context(serve_health(house, settings.executor_port, crew.metrics))
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
        away = [name for name, there in (await house.state()).items() if not there]
        if away:
            logger.warning("executor has started and waits", extra={"for": ", ".join(away), "executor_id": house.me})
        else:
            logger.info("executor is ready", extra={"executor_id": house.me, "model": model.name})
        await Worker(house, crew).run(stop)
    logger.info("executor has stopped")


def main() -> None:
    try:
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format)
        warn_of_unknown_settings()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(execute(settings))
    except (ConfigError, Unavailable) as error:
        sys.exit(f"executor: {error}")


if __name__ == "__main__":
    main()

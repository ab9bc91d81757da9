"""One executor process, from reading its settings to its exit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop

from backend.chat.flows.files.workspace import Workspace
from backend.chat.resources import Resources
from backend.config import Settings, load_settings, warn_of_unknown_settings
from backend.errors import ConfigError, Unavailable
from backend.garbage import resume_collector
from backend.ids import ExecutorId
from backend.logs import configure_logs
from backend.open_files import raise_open_files_limit
from backend.platform import open_platform
from backend.resources import open_resources
from executor.generator import open_generator
from executor.health import serve_health
from executor.heartbeat import Heartbeat
from executor.llm.models import open_models
from executor.mcp import open_mcp
from executor.sandbox import BASH_EXEC, open_sandbox
from executor.tools import own_tools, workspace_tools
from executor.tools.tool import FINDERS, Toolbox, ToolSource
from executor.turns.context import ExecutorContext
from executor.turns.single_turn import SingleTurnQueue
from executor.web import open_web
from executor.worker import Worker

if TYPE_CHECKING:  # see _of_sandbox
    from executor.sandbox.client import Sandbox

logger = logging.getLogger(__name__)


async def execute(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT. Raises ConfigError, or Unavailable if a server that the start needs is down."""
    stop = asyncio.Event()
    _set_on_signals(stop)
    async with (
        _open_context(settings) as (resources, context),
        serve_health(resources, settings.executor_port, context.metrics),
    ):
        missing = [name for name, healthy in (await resources.state()).checks.items() if not healthy]
        if missing:
            logger.warning(
                "executor has started and waits", extra={"for": ", ".join(missing), "executor_id": resources.me}
            )
        else:
            logger.info("executor is ready", extra={"executor_id": resources.me, "model": context.model_name})
        await Worker(resources, context).run(stop)
    logger.info("executor has stopped")


async def execute_single(settings: Settings, single: SingleTurnQueue) -> None:
    """Runs one turn until it is settled, or until SIGTERM or SIGINT. Raises the same errors as `execute`."""
    _set_on_signals(single.settled)
    async with _open_context(settings, single.me) as (resources, context):
        await Worker(resources, context, single).run(single.settled)


def _set_on_signals(stop: asyncio.Event) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)


@asynccontextmanager
async def _open_context(
    settings: Settings, me: ExecutorId | None = None
) -> AsyncIterator[tuple[Resources, ExecutorContext]]:
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(open_resources(settings, me))
        models = await stack.enter_async_context(open_models(settings))
        generator = await stack.enter_async_context(open_generator(settings))
        platform = await stack.enter_async_context(open_platform(settings))
        web = await stack.enter_async_context(open_web(settings))
        sandbox = await stack.enter_async_context(open_sandbox(settings))
        workspace = Workspace(settings, resources.database, resources.files)
        tools = own_tools(settings, generator, platform, web)
        if settings.workspace_tools:
            tools += workspace_tools(workspace, resources.file_reader)
        names = [*(tool.name for tool in tools), *FINDERS, BASH_EXEC]
        servers = await stack.enter_async_context(open_mcp(settings, names, resources.database))
        toolbox = Toolbox(tools, [*_of_sandbox(sandbox, workspace), *servers])
        resume_collector()
        context = ExecutorContext(settings, models, toolbox, Heartbeat(resources), generator, servers, platform)
        resources.report_to(pool_wait=context.metrics.count_pool_wait, appended=context.metrics.count_appended)
        context.metrics.watch_clock_skew("postgres", lambda: resources.liveness.skew.seconds)
        context.metrics.watch_clock_skew("redis", lambda: resources.liveness.redis_skew.seconds)
        if platform is not None:
            context.metrics.watch_platform(lambda: platform.why_away, platform.calls)
            platform.report_to(context.metrics.count_platform_call)
        if sandbox is not None:
            context.metrics.sandbox_away = lambda: sandbox.why_away
        if web.fetcher or web.searcher:
            context.metrics.watch_web(lambda: web.outcomes)
        if servers:
            from executor.mcp.failures import ReasonKind  # it imports the SDK, which few installations need

            context.metrics.watch_tool_servers(
                lambda: [replace(server.status, left_out=toolbox.left_out(server)) for server in servers], ReasonKind
            )
        yield resources, context


def _of_sandbox(sandbox: Sandbox | None, workspace: Workspace) -> list[ToolSource]:
    if sandbox is None:
        return []
    from executor.tools.bash_exec import SandboxTools  # an executor without a sandbox starts faster without it

    return [SandboxTools(sandbox, workspace)]


def run(arguments: Sequence[str]) -> None:
    """Runs an executor with the settings of the environment; with arguments, runs only the turn that they name.

    Prints one line and exits if the error is one that an operator can fix.
    """
    try:
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format)
        warn_of_unknown_settings(settings)
        raise_open_files_limit()
        single = SingleTurnQueue.parse(arguments) if arguments else None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(execute(settings) if single is None else execute_single(settings, single))
    except (ConfigError, Unavailable) as error:
        sys.exit(f"executor: {error}")
    if single is not None and not single.acked:
        sys.exit(os.EX_TEMPFAIL)

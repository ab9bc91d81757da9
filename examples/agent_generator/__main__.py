"""Runs the generator: `python -m examples.agent_generator --port 8000`. README.md lists the environment variables."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from pathlib import Path

import uvicorn

if not __package__:  # started as `python examples/agent_generator`
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from examples.agent_generator.app import create_app
from examples.agent_generator.options import Options, read_options
from examples.agent_platform.options import InvalidOption, PlatformOptions, read_platform_options


class _Server(uvicorn.Server):
    """A server that prints its port on standard output when it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            sys.stdout.write(f"listening on {listener.getsockname()[1]}\n")
            sys.stdout.flush()


async def serve(options: Options, platform: PlatformOptions) -> None:
    """Serves until SIGINT or SIGTERM."""
    config = uvicorn.Config(create_app(options, platform), log_level="warning", timeout_graceful_shutdown=3)
    listener = socket.create_server((options.host, options.port))
    await _Server(config).serve([listener])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        platform_options = read_platform_options()
    except InvalidOption as invalid:
        sys.exit(f"the environment of the platform: {invalid}")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(read_options(sys.argv[1:]), platform_options))

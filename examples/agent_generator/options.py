"""Options from the command line and the environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WAYS = ("webhook", "stream", "now")


@dataclass(frozen=True, slots=True)
class Options:
    """The default way to answer requests, and the settings for delivering outcomes. Times are in seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    way: str = "webhook"
    delay: float = 3.0
    progress: int = 0
    ladder: tuple[float, ...] = (1, 3, 10, 30, 60, 120)
    """The waits before the second attempt of a delivery, the third, and so on."""
    api_key: str | None = None
    webhook_secret: str | None = None
    redis_url: str | None = None
    callback_base: str | None = None
    """The prefix that a callback URL must have."""


def read_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Reads the options. Secrets come only from the environment: all users of a machine can see a command line."""
    usual = Options()
    env = {name: value for name, value in environment.items() if value}
    parser = argparse.ArgumentParser(prog="agent_generator", description="A small agent generator.")
    parser.add_argument("--host", default=env.get("GENERATOR_HOST", usual.host))
    parser.add_argument("--port", type=int, default=env.get("GENERATOR_PORT", usual.port), help="0 for a free port")
    parser.add_argument("--answer", choices=WAYS, default=env.get("GENERATOR_ANSWER", usual.way))
    parser.add_argument("--delay", type=float, default=env.get("GENERATOR_DELAY", usual.delay), help="seconds of work")
    parser.add_argument(
        "--progress", type=int, default=env.get("GENERATOR_PROGRESS", usual.progress), help="number of progress reports"
    )
    parser.add_argument("--ladder", default=env.get("GENERATOR_LADDER", ",".join(f"{rung:g}" for rung in usual.ladder)))
    given = parser.parse_args(arguments)
    if given.answer not in WAYS:
        parser.error(f"GENERATOR_ANSWER: must be one of {', '.join(WAYS)}")
    try:
        ladder = tuple(float(rung) for rung in given.ladder.split(",") if rung.strip())
    except ValueError:
        parser.error("--ladder: must be seconds, separated by commas")
    return Options(
        given.host, given.port, given.answer, given.delay, given.progress, ladder,
        env.get("GENERATOR_API_KEY"), env.get("GENERATOR_WEBHOOK_SECRET"), env.get("GENERATOR_REDIS_URL"),
        env.get("GENERATOR_CALLBACK_BASE"),
    )  # fmt: skip

"""What the command line and the environment say."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WAYS = ("webhook", "stream", "now")


@dataclass(frozen=True, slots=True)
class Options:
    """How this generator answers when a request does not say, and what it needs to tell the outcome. Seconds."""

    host: str = "127.0.0.1"
    port: int = 8000
    way: str = "webhook"
    delay: float = 3.0
    progress: int = 0
    ladder: tuple[float, ...] = (1, 3, 10, 30, 60, 120)
    """The waits before the second try of a completion, the third, and so on."""
    api_key: str | None = None
    webhook_secret: str | None = None
    redis_url: str | None = None
    callback_base: str | None = None
    """The only beginning that a callback URL may have."""


def read_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """Secrets come by the environment alone: a command line is seen by every user of the machine."""
    usual = Options()
    env = {name: value for name, value in environment.items() if value}
    parser = argparse.ArgumentParser(prog="agent_generator", description="A small agent generator.")
    parser.add_argument("--host", default=env.get("GENERATOR_HOST", usual.host))
    parser.add_argument("--port", type=int, default=env.get("GENERATOR_PORT", usual.port), help="0: a free one")
    parser.add_argument("--answer", choices=WAYS, default=env.get("GENERATOR_ANSWER", usual.way))
    parser.add_argument("--delay", type=float, default=env.get("GENERATOR_DELAY", usual.delay), help="seconds of work")
    parser.add_argument("--progress", type=int, default=env.get("GENERATOR_PROGRESS", usual.progress), help="reports")
    parser.add_argument("--ladder", default=env.get("GENERATOR_LADDER", ",".join(f"{rung:g}" for rung in usual.ladder)))
    given = parser.parse_args(arguments)
    if given.answer not in WAYS:
        parser.error(f"GENERATOR_ANSWER: one of {', '.join(WAYS)}")
    try:
        ladder = tuple(float(rung) for rung in given.ladder.split(",") if rung.strip())
    except ValueError:
        parser.error("--ladder: seconds, separated by commas")
    return Options(
        given.host, given.port, given.answer, given.delay, given.progress, ladder,
        env.get("GENERATOR_API_KEY"), env.get("GENERATOR_WEBHOOK_SECRET"), env.get("GENERATOR_REDIS_URL"),
        env.get("GENERATOR_CALLBACK_BASE"),
    )  # fmt: skip

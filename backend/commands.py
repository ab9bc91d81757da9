"""The commands of `python -m backend`. A docstring here is the help of its command."""

from __future__ import annotations

import asyncio

from backend.config import Settings, load_settings, warn_of_unknown_settings
from backend.logs import configure_logs


def up() -> None:
    """Run everything on this machine: embedded PostgreSQL and Valkey, API, executor, page."""
    from backend.up import up as run  # the API does not need what it imports

    asyncio.run(run(_settings(), _say))


def serve() -> None:
    """Run the API: one process, configured by the environment."""
    from backend.api.server import serve as run  # the other commands do not need FastAPI

    run(_settings())


def migrate() -> None:
    """Bring the database up to date, and say what was applied."""
    from backend.migrating import migrate as run  # it alone

    applied = asyncio.run(run(_settings().database_dsn))
    _say("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


def _settings() -> Settings:
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    warn_of_unknown_settings()
    return settings


def _say(line: str) -> None:
    print(line, flush=True)

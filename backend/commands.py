"""The commands of `python -m backend`. The docstring of a public function is the help text of its command."""

from __future__ import annotations

import asyncio

from backend.config import Settings, load_settings, warn_of_unknown_settings
from backend.logs import configure_logs


def up() -> None:
    """Run everything on this machine: embedded PostgreSQL and Valkey, API, executor and page."""
    from backend.up import up as run  # imported late: the other commands do not need it

    asyncio.run(run(read_settings(), say))


def serve() -> None:
    """Run the API: one process, configured by the environment."""
    from backend.api.server import serve as run  # imported late: the other commands do not need FastAPI

    run(read_settings())


def migrate() -> None:
    """Apply pending database migrations and list them."""
    from backend.migrating import migrate as run  # imported late: the other commands do not need it

    applied = asyncio.run(run(read_settings().database_dsn))
    say("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


def read_settings() -> Settings:
    """Returns the settings, and sets up the log. Raises ConfigError."""
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    warn_of_unknown_settings(settings)
    return settings


def say(line: str) -> None:
    """Prints a line for the user."""
    print(line, flush=True)

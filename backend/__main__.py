"""`python -m backend`: the command line."""

from __future__ import annotations

import asyncio
import sys

import typer

from backend.config import Settings, load_settings, warn_of_unknown_settings
from backend.embedded import ChildFailedError
from backend.errors import ConfigError, Unavailable
from backend.logs import configure_logs

app = typer.Typer(
    help="CoPilot, a durable chat backend. Settings come from the environment; .env.default lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def up() -> None:
    """Run everything on this machine: embedded PostgreSQL and Valkey, API, executor, page."""
    from backend.up import up as run

    asyncio.run(run(_settings(), _say))


@app.command()
def serve() -> None:
    """Run the API: one process, configured by the environment."""
    from backend.api.server import serve as run

    run(_settings())


@app.command()
def migrate() -> None:
    """Bring the database up to date, and say what was applied."""
    from backend.migrating import migrate as run

    applied = asyncio.run(run(_settings().database_dsn))
    _say("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


def _settings() -> Settings:
    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    warn_of_unknown_settings()
    return settings


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def main() -> None:
    """Runs a command; what an operator can mend ends it with one line."""
    try:
        app(prog_name="python -m backend")
    except (ConfigError, ChildFailedError, Unavailable) as error:
        sys.exit(f"copilot: {error}")


if __name__ == "__main__":
    main()

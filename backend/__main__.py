"""Runs a command of `backend.commands`: `python -m backend COMMAND`."""

from __future__ import annotations

import sys

from backend.garbage import pause_collector, resume_collector


def main() -> None:
    """Runs a command. Prints one line and exits with 1 for errors that an operator can correct."""
    pause_collector()
    from backend import commands  # imported while the collector is paused
    from backend.errors import ChildFailedError, ConfigError, Unavailable

    try:
        match sys.argv[1:]:
            case ["serve"]:
                commands.serve()
            case _:
                from backend.command_line import app  # imported late: typer takes 20 ms, and `serve` does not need it

                resume_collector()
                app(prog_name="python -m backend")
    except (ConfigError, ChildFailedError, Unavailable) as error:
        sys.exit(f"copilot: {error}")
    except KeyboardInterrupt:  # the exit code that typer uses
        sys.exit(130)


if __name__ == "__main__":
    main()

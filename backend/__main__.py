"""`python -m backend`: runs a command of `backend.commands`."""

from __future__ import annotations

import sys

from backend.garbage import pause_collector, resume_collector


def main() -> None:
    """Runs a command; what an operator can mend ends it with one line."""
    pause_collector()
    from backend import commands  # while the collector rests
    from backend.errors import ChildFailedError, ConfigError, Unavailable

    try:
        match sys.argv[1:]:
            case ["serve"]:
                commands.serve()
            case _:
                from backend.command_line import app  # typer takes 20 ms, which the API need not wait for

                resume_collector()
                app(prog_name="python -m backend")
    except (ConfigError, ChildFailedError, Unavailable) as error:
        sys.exit(f"copilot: {error}")
    except KeyboardInterrupt:  # as typer has it
        sys.exit(130)


if __name__ == "__main__":
    main()

"""Command line of one executor process, `python -m executor`, configured by the environment.

With three arguments (task, session, executor id) the process runs only that turn, as the child of another executor
(`executor.turns.processes`).
"""

from __future__ import annotations

import sys

from backend.garbage import pause_collector


def main() -> None:
    pause_collector()
    from executor.process import run  # imported while the collector is paused

    run(sys.argv[1:])


if __name__ == "__main__":
    main()

"""`python -m executor`: one executor process, configured by the environment.

With three arguments (task, session, executor id) it is a child of one, for that turn alone (`executor.children`)."""

from __future__ import annotations

import sys

from backend.garbage import pause_collector


def main() -> None:
    pause_collector()
    from executor.process import run  # while the collector rests

    run(sys.argv[1:])


if __name__ == "__main__":
    main()

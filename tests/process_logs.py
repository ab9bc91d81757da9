"""The logs of a failed test's processes, for its report: pytest removes a test's own folder some runs later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.e2e.stack import Stack

MOST_FILES = 30
"""Log files that are kept: the newest ones."""
TAIL = 20_000
"""The last bytes of a file that are kept."""


def logs_of(fixtures: Mapping[str, object]) -> list[tuple[str, str]]:
    """Returns sections of a report: the logs of a shared stack, and the `.log` files in the test's own folder."""
    found = [("the processes", one.logs()) for one in fixtures.values() if isinstance(one, Stack)]
    folder = fixtures.get("tmp_path")
    if isinstance(folder, Path):
        files = sorted(folder.rglob("*.log"), key=lambda file: file.stat().st_mtime)[-MOST_FILES:]
        found += [(str(file.relative_to(folder)), _tail(file)) for file in files]
    return found


def _tail(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - TAIL))
        return opened.read().decode(errors="replace")

"""What the fault tests measured: kept in .cache/faults.txt, and printed at the end of a run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.scale import FULL

_KEPT = Path(__file__).parent.parent.parent / ".cache" / "faults.txt"


def record(invariant: str, figures: str) -> None:
    """Keeps one line: which invariant of docs/guarantees.md, and what was seen."""
    _KEPT.parent.mkdir(exist_ok=True)
    with _KEPT.open("a") as kept:
        kept.write(f"{time.strftime('%Y-%m-%d %H:%M')} {invariant:4} {'full ' if FULL else 'small'} {figures}\n")


class FiguresAtTheEnd:
    """A pytest plugin that prints the lines which were kept while the run lasted, whichever process wrote them."""

    def __init__(self) -> None:
        self._before = _size()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if _size() > self._before:
            terminalreporter.section("figures of the fault tests")
            with _KEPT.open("rb") as kept:
                kept.seek(self._before)
                terminalreporter.write(kept.read().decode())


def _size() -> int:
    return _KEPT.stat().st_size if _KEPT.exists() else 0

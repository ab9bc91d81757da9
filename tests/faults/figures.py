"""Records the figures of the fault tests in .cache/faults.txt, and prints them at the end of a run."""

from __future__ import annotations

import time

import pytest

from tests import ROOT
from tests.faults.scale import FULL

_KEPT = ROOT / ".cache" / "faults.txt"


def record(invariant: str, figures: str) -> None:
    """Appends a line with an invariant of docs/guarantees.md and the figures that were measured."""
    _KEPT.parent.mkdir(exist_ok=True)
    with _KEPT.open("a") as kept:
        kept.write(f"{time.strftime('%Y-%m-%d %H:%M')} {invariant:4} {'full ' if FULL else 'small'} {figures}\n")


class FiguresAtTheEnd:
    """A pytest plugin that prints the lines which any process recorded during the run."""

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

"""What the fault tests measured: printed at the end of a run, and kept in .cache/faults.txt."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.scale import FULL

_KEPT = Path(__file__).parent.parent.parent / ".cache" / "faults.txt"
said: list[str] = []


def record(invariant: str, figures: str) -> None:
    """One line: which invariant of docs/guarantees.md, and what was seen."""
    line = f"{invariant:4} {'full ' if FULL else 'small'} {figures}"
    said.append(line)
    _KEPT.parent.mkdir(exist_ok=True)
    with _KEPT.open("a") as kept:
        kept.write(f"{time.strftime('%Y-%m-%d %H:%M')} {line}\n")

"""The history of a run: one event for each request and one for its outcome (ok, fail, or unknown).

Unknown means that the answer was lost, so the request may have had its effect.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["invoke", "ok", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Event:
    """An act `op` of `process` on the object `id`, `t` seconds after the beginning. `about` holds further JSON
    values."""

    t: float
    process: str
    op: str
    id: str
    outcome: Outcome
    about: dict[str, Any] = field(default_factory=dict)


class History:
    """The events of a run in order. Each is also written to `file`, which remains after a failed run."""

    def __init__(self, file: Path | None = None) -> None:
        self.events: list[Event] = []
        self.file = file
        self._began = time.monotonic()

    def note(self, process: str, op: str, id: str, outcome: Outcome, /, **about: Any) -> None:
        event = Event(round(time.monotonic() - self._began, 3), process, op, id, outcome, about)
        self.events.append(event)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps(asdict(event)) + "\n")

    def of(self, op: str) -> list[Event]:
        return [event for event in self.events if event.op == op]


def read_events(lines: Iterable[str]) -> list[Event]:
    """Parses the lines of a history file."""
    return [Event(**json.loads(line)) for line in lines]

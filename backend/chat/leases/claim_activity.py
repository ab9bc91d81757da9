"""The work of a process that may claim tasks.

While there is none, its claims are checked only if a heartbeat has found one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from backend.ids import TaskId


class ClaimActivity:
    """Counts the pieces of work that run now and may claim a task, and knows when the last one ended."""

    def __init__(self) -> None:
        self._work: Counter[TaskId] = Counter()
        self.ended_at = time.monotonic()
        self.found = False
        """True if a heartbeat has found a claim in Postgres since the last check of the claims."""

    @property
    def running(self) -> bool:
        return bool(self._work)

    def on(self, task_id: TaskId) -> int:
        """Returns how many pieces of work are about this task. If there are none, nobody will use a claim on it."""
        return self._work[task_id]

    @contextmanager
    def noted(self, task_id: TaskId) -> Iterator[None]:
        """Counts as one piece of work while the block runs. This process makes every claim inside such a block."""
        self._work[task_id] += 1
        try:
            yield
        finally:
            self._work[task_id] -= 1
            if not self._work[task_id]:
                del self._work[task_id]
            self.ended_at = time.monotonic()

"""The work of a process that may claim tasks. While there is none, its claims need not be checked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class ClaimActivity:
    """Counts the pieces of work that run now and may claim a task, and knows when the last one ended."""

    def __init__(self) -> None:
        self.running = 0
        self.ended_at = time.monotonic()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Counts as one piece of work while the block runs. This process makes every claim inside such a block."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self.ended_at = time.monotonic()

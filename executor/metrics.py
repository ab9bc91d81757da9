"""What this process counts, for Prometheus: the turns it ran."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from backend.chat.models import Task

_FIRST_CHUNK = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REASONS = frozenset({"unreadable", "delivery_limit", "rejected", "expired", "maxlen"})
_WHOLE_TURN = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 7200)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._running = Gauge("turns_running", "Turns under way in this executor", registry=self.registry)
        self._ended = Counter("turns_ended", "Turns that this executor ended", ["status"], registry=self.registry)
        self._dead_letters = Counter(
            "turn_dead_letters", "Turns that the queue gave up on", ["reason"], registry=self.registry
        )
        self._first_chunk = Histogram(
            "turn_first_chunk_seconds",
            "From the start of a turn's first attempt to the first chunk of the model",
            buckets=_FIRST_CHUNK,
            registry=self.registry,
        )
        self._seconds = Histogram(
            "turn_seconds",
            "From a turn's first claim to its end, all attempts together",
            buckets=_WHOLE_TURN,
            registry=self.registry,
        )

    def watch_running(self, number: Callable[[], float]) -> None:
        self._running.set_function(number)

    def count_first_chunk(self, seconds: float) -> None:
        self._first_chunk.observe(seconds)

    def count_end(self, task: Task) -> None:
        """`task` as its end was stored."""
        self._ended.labels(task.status.value).inc()
        if task.started_at is not None and task.finished_at is not None:
            self._seconds.observe((task.finished_at - task.started_at).total_seconds())

    def count_dead_letter(self, reason: str) -> None:
        self._dead_letters.labels(reason if reason in _REASONS else "other").inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)

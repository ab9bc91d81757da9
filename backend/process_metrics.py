"""The Prometheus metrics that API and executor have in common. docs/metrics.md lists all metrics (a test compares)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest

_POOL_WAIT_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5)
_CHUNK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ProcessMetrics:
    """The registry of one process, or of one app: a process may hold several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._skew = Gauge(
            "clock_skew_seconds",
            "Seconds by which this machine's clock is ahead of a store's, when it was last compared",
            ["store"],
            registry=self.registry,
        )
        self._checks = Gauge(
            "readiness_check", "1 if a check of readiness passes, else 0; checked at the scrape", ["check"],
            registry=self.registry,
        )  # fmt: skip
        self._pool_wait = Histogram(
            "db_pool_wait_seconds",
            "Seconds until the pool gave a connection to PostgreSQL",
            buckets=_POOL_WAIT_S,
            registry=self.registry,
        )
        self._chunks = Histogram(
            "chunk_append_seconds",
            "Seconds from the oldest chunk of a batch until Redis had the batch",
            buckets=_CHUNK_S,
            registry=self.registry,
        )

    def watch_clock_skew(self, store: str, seconds: Callable[[], float]) -> None:
        """Registers `seconds`, which supplies `clock_skew_seconds` of this store at each scrape."""
        self._skew.labels(store).set_function(seconds)

    def note_checks(self, checks: Mapping[str, bool]) -> None:
        """Notes the result of the readiness checks, by name."""
        for name, passes in checks.items():
            self._checks.labels(name).set(passes)

    def count_pool_wait(self, seconds: float) -> None:
        self._pool_wait.observe(seconds)

    def count_appended(self, seconds: float) -> None:
        self._chunks.observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self.registry)

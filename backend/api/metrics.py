"""What this process counts, for Prometheus. One registry an app, so that several can live in one process."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "http_request_seconds",
            "From a request's arrival to its last byte; to the first of a stream",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._open_streams = Gauge("sse_open_streams", "Streams that are open now", registry=self.registry)

        self._old_keys = Counter("old_key_used", "Requests with a key that is not the newest", registry=self.registry)

    def count_old_key(self) -> None:
        self._old_keys.inc()

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def watch_open_streams(self, number: Callable[[], float]) -> None:
        self._open_streams.set_function(number)

    def render(self) -> bytes:
        return generate_latest(self.registry)

"""The Prometheus metrics of the API. Each app has its own registry, so that one process can hold several apps."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from backend.chat.queue.completions import REFUSALS
from backend.process_metrics import ProcessMetrics

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ApiMetrics(ProcessMetrics):
    def __init__(self) -> None:
        super().__init__()
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "http_request_seconds",
            "Seconds from a request's arrival to its last byte, or to the first byte of a stream",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._open_streams = Gauge("sse_open_streams", "Streams that are open", registry=self.registry)
        self._body_bytes = Gauge(
            "http_body_bytes", "Bytes that request bodies count as, of MAX_BODY_MEMORY", registry=self.registry
        )
        self._old_keys = Counter(
            "old_key_used", "Requests with a service key that is not the newest", registry=self.registry
        )
        self._dead_completions = Counter(
            "completion_dead_letters",
            "Entries of chat:completions that were given up",
            ["reason"],
            registry=self.registry,
        )
        for reason in (*REFUSALS, "other"):  # from 0 on: Prometheus sees no increase in a series that begins with 1
            self._dead_completions.labels(reason)

    def expect(self, method: str, route: str) -> None:
        """Begins the series of failed requests to a route at 0, so that the first failure shows as an increase."""
        for status in ("500", "503"):
            self._requests.labels(method, route, status)

    def count_old_key(self) -> None:
        self._old_keys.inc()

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def watch_open_streams(self, number: Callable[[], float]) -> None:
        self._open_streams.set_function(number)

    def watch_body_bytes(self, number: Callable[[], float]) -> None:
        self._body_bytes.set_function(number)

    def count_dead_completion(self, reason: str) -> None:
        self._dead_completions.labels(reason if reason in REFUSALS else "other").inc()

"""Prometheus metrics of model calls, by the name of the model that the operator has configured."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from backend.chat.models import Usage

_FIRST_EVENT_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600)
_TOKEN_KINDS = ("input", "output", "reasoning", "cached")
_CALL_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class ModelMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter("model_calls", "Model calls that ended", ["model", "outcome"], registry=registry)
        self._retries = Counter(
            "model_retries", "Failed tries of model calls that were followed by another", ["model", "code"],
            registry=registry,
        )  # fmt: skip
        self._first_event = Histogram(
            "model_first_event_seconds",
            "Seconds from the beginning of a model call to its first event, with all retries",
            ["model"],
            buckets=_FIRST_EVENT_S,
            registry=registry,
        )
        self._seconds = Histogram(
            "model_call_seconds", "Seconds of a model call, with all retries", ["model"], buckets=_CALL_S,
            registry=registry,
        )  # fmt: skip
        self._tokens = Counter("model_tokens", "Tokens of model calls", ["model", "kind"], registry=registry)

    def expect(self, model: str, codes: Iterable[str]) -> None:
        """Begins the series of a configured model at 0, because Prometheus sees no increase in one that begins with 1.

        `codes` are those with which its calls may fail.
        """
        for code in codes:
            self._calls.labels(model, code)
            self._retries.labels(model, code)
        for outcome in ("completed", "abandoned", "internal_error"):
            self._calls.labels(model, outcome)
        for kind in _TOKEN_KINDS:
            self._tokens.labels(model, kind)
        self._first_event.labels(model)
        self._seconds.labels(model)

    def count_retry(self, model: str, code: str) -> None:
        self._retries.labels(model, code).inc()

    def count_first_event(self, model: str, seconds: float) -> None:
        self._first_event.labels(model).observe(seconds)

    def count_call(self, model: str, outcome: str, seconds: float, usage: Usage) -> None:
        """Counts a call that ended. `outcome` is `completed`, `abandoned`, or the code of its failure."""
        self._calls.labels(model, outcome).inc()
        self._seconds.labels(model).observe(seconds)
        numbers = (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.cached_tokens)
        for kind, number in zip(_TOKEN_KINDS, numbers, strict=True):
            if number > 0:
                self._tokens.labels(model, kind).inc(number)

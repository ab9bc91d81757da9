"""Prometheus metrics of model calls, by the name of the model that the operator has configured."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from backend.chat.models import Usage

_FIRST_EVENT_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600)
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

    def count_retry(self, model: str, code: str) -> None:
        self._retries.labels(model, code).inc()

    def count_first_event(self, model: str, seconds: float) -> None:
        self._first_event.labels(model).observe(seconds)

    def count_call(self, model: str, outcome: str, seconds: float, usage: Usage) -> None:
        """Counts a call that ended. `outcome` is `completed`, `abandoned`, or the code of its failure."""
        self._calls.labels(model, outcome).inc()
        self._seconds.labels(model).observe(seconds)
        kinds = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "reasoning": usage.reasoning_tokens,
            "cached": usage.cached_tokens,
        }
        for kind, number in kinds.items():
            if number > 0:
                self._tokens.labels(model, kind).inc(number)

"""A model whose calls are counted."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from backend.chat.models import Usage
from backend.errors import ProviderError
from backend.files.kinds import Kind
from backend.tracing import Attributes, Span, part
from executor.llm.events import Finished, ModelEvent, UsageSoFar
from executor.llm.model import ON_RETRY, Model, Prompt
from executor.model_metrics import ModelMetrics


class MeasuredModel:
    """Another `Model`, with metrics of its calls. A call that its caller leaves before the end is `abandoned`."""

    def __init__(self, model: Model, metrics: ModelMetrics) -> None:
        self._model = model
        self._metrics = metrics

    @property
    def name(self) -> str:
        return self._model.name

    def room(self, prompt: Prompt) -> int | None:
        """See `Model.room`."""
        return self._model.room(prompt)

    def refused_kinds(self) -> frozenset[Kind]:
        """See `Model.refused_kinds`."""
        return self._model.refused_kinds()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        ON_RETRY.set(partial(self._metrics.count_retry, self.name))
        call = _Call(self.name, self._metrics)
        about: Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": self.name,
            "gen_ai.request.stream": True,
        }
        with part(f"chat {self.name}", about, remote=True) as span:
            try:
                async with aclosing(self._model.stream(prompt)) as events:
                    async for event in events:
                        call.see(event)
                        yield event
            except ProviderError as error:
                call.outcome = error.code
                raise
            except Exception:
                call.outcome = "internal_error"
                raise
            finally:
                call.end(span)


class _Call:
    """What is known of one call."""

    def __init__(self, model: str, metrics: ModelMetrics) -> None:
        self.outcome = "abandoned"
        self._model = model
        self._metrics = metrics
        self._began = time.monotonic()
        self._first: float | None = None
        self._usage = Usage()

    def see(self, event: ModelEvent) -> None:
        kind = type(event)
        if kind is UsageSoFar or kind is Finished:
            self._usage = event.usage  # type: ignore[union-attr]
        if self._first is None and kind is not UsageSoFar:
            self._first = time.monotonic() - self._began
            self._metrics.count_first_event(self._model, self._first)
        if kind is Finished:
            self.outcome = "completed"

    def end(self, span: Span) -> None:
        self._metrics.count_call(self._model, self.outcome, time.monotonic() - self._began, self._usage)
        span.note(
            {
                "gen_ai.usage.input_tokens": self._usage.input_tokens,
                "gen_ai.usage.output_tokens": self._usage.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": self._usage.cached_tokens,
                "copilot.outcome": self.outcome,
            }
        )
        if self._first is not None:
            span.note({"gen_ai.response.time_to_first_chunk": self._first})
        if self.outcome not in ("completed", "abandoned"):
            span.fail(self.outcome)

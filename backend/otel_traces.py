"""Traces that are sent by OTLP over HTTP, with the SDK of OpenTelemetry. Only a process that traces imports this."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from hashlib import sha256
from importlib.metadata import version

from backend.errors import ConfigError
from backend.tracing import Attributes, Span, Traces

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import Decision
    from opentelemetry.trace import (
        Link,
        NonRecordingSpan,
        SpanContext,
        SpanKind,
        Status,
        StatusCode,
        TraceFlags,
    )
except ImportError as missing:
    raise ConfigError(
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, and OpenTelemetry is missing: pip install 'copilot-chat[otel]'"
    ) from missing

FLUSH_LIMIT = 5.0
"""Seconds in which a process that stops sends its last spans, and the longest time of one request."""
_ids: ContextVar[tuple[int, int] | None] = ContextVar("ids", default=None)


class _TaskIds(IdGenerator):
    """Gives a span the ids in `_ids`, and random ones without them."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        ids = _ids.get()
        return self._random.generate_trace_id() if ids is None else ids[0]

    def generate_span_id(self) -> int:
        ids = _ids.get()
        return self._random.generate_span_id() if ids is None else ids[1]


def trace_id_of(task_id: str) -> int:
    """Returns the id of a task's trace: the first 16 bytes of the SHA-256 of the task's id."""
    return int.from_bytes(sha256(task_id.encode()).digest()[:16])


def span_id_of(task_id: str, attempt: int) -> int:
    """Returns the id of an attempt's span, and that of the root span for attempt 0."""
    return int.from_bytes(sha256(f"{task_id} {attempt}".encode()).digest()[:8]) or 1


class _OpenSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, kind))


class OtelTraces:
    """A `Traces` over one provider."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("copilot-chat", version("copilot-chat"))

    def accepted(self, task_id: str, seconds: float, attributes: Attributes) -> None:
        token = _ids.set((trace_id_of(task_id), span_id_of(task_id, 0)))
        try:
            now = time.time_ns()
            span = self._tracer.start_span(
                "accept message",
                context=trace.set_span_in_context(trace.INVALID_SPAN),
                kind=SpanKind.SERVER,
                attributes=dict(attributes),
                start_time=now - int(seconds * 1e9),
            )
            span.end(now)
        finally:
            _ids.reset(token)

    @contextmanager
    def attempt(self, task_id: str, attempt: int, earlier: int | None, attributes: Attributes) -> Iterator[Span]:
        links = [] if earlier is None else [Link(self._context_of(task_id, earlier))]
        parent = trace.set_span_in_context(NonRecordingSpan(self._context_of(task_id, 0)))
        token = _ids.set((trace_id_of(task_id), span_id_of(task_id, attempt)))
        try:
            span = self._tracer.start_span(
                "invoke_agent", context=parent, kind=SpanKind.CONSUMER, attributes=dict(attributes), links=links
            )
        finally:
            _ids.reset(token)
        # An exception's text may have what users wrote, so the span gets its class only.
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            opened = _OpenSpan(span)
            try:
                yield opened
            except Exception as error:
                opened.fail(type(error).__name__)
                raise

    @contextmanager
    def part(self, name: str, attributes: Attributes, *, remote: bool) -> Iterator[Span]:
        kind = SpanKind.CLIENT if remote else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name, kind=kind, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            yield _OpenSpan(span)

    def _context_of(self, task_id: str, attempt: int) -> SpanContext:
        """Returns the context of a span that another process may have made.

        The sampler of the provider decides by the trace's id, so all processes decide alike.
        """
        decision = self._provider.sampler.should_sample(None, trace_id_of(task_id), "").decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        return SpanContext(trace_id_of(task_id), span_id_of(task_id, attempt), is_remote=True, trace_flags=flags)


@asynccontextmanager
async def open_otel(endpoint: str, process: str) -> AsyncIterator[Traces]:
    """Sends spans to `<endpoint>/v1/traces` from a thread. What a collector that is away does not take is dropped.

    The SDK reads OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_EXPORTER_OTLP_HEADERS and OTEL_SERVICE_NAME.
    """
    resource = Resource.create({"service.name": "copilot-chat", "service.instance.id": process})
    provider = TracerProvider(resource=resource, id_generator=_TaskIds(), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=FLUSH_LIMIT)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield OtelTraces(provider)
    finally:
        await _shut_down(provider)


async def _shut_down(provider: TracerProvider) -> None:
    """Sends the last spans within FLUSH_LIMIT. The SDK alone takes that long for each batch, if nobody answers."""
    sending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
    sending.start()
    await asyncio.to_thread(sending.join, FLUSH_LIMIT)

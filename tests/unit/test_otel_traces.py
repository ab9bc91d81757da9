"""Traces of OpenTelemetry: what spans may say, and how long a process that stops waits for its collector."""

from __future__ import annotations

import asyncio
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backend import otel_traces
from backend.chat.models import ToolCallPart
from backend.tracing import attempt_span
from executor.agent.calls import Calls
from executor.tools.tool import Toolbox
from tests.speed import limit
from tests.unit.test_agent import BarrierTool, ToolHost

SECRET = "a sentence of the user"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(spans: InMemorySpanExporter) -> otel_traces.OtelTraces:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return otel_traces.OtelTraces(provider)


def test_an_attempt_that_raises_has_the_class_of_the_error_and_not_its_text(
    spans: InMemorySpanExporter, traces: otel_traces.OtelTraces
) -> None:
    with pytest.raises(ValueError, match=SECRET), attempt_span(traces, "t", 1, None, {}):
        raise ValueError(SECRET)
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok
    assert dict(span.attributes or {})["error.type"] == "ValueError"
    assert SECRET not in span.to_json()


async def test_a_tool_that_does_not_exist_is_not_named(
    spans: InMemorySpanExporter, traces: otel_traces.OtelTraces
) -> None:
    calls = [ToolCallPart("1", SECRET, {}), ToolCallPart("2", "wait", {})]
    with attempt_span(traces, "t", 1, None, {}):
        running = Calls(calls, Toolbox([BarrierTool(1)]), ToolHost(), limit(5))
        assert [chunk async for chunk in running.run()]
    found = spans.get_finished_spans()
    assert {span.name for span in found} == {"execute_tool unknown_tool", "execute_tool wait", "invoke_agent"}
    assert SECRET not in "".join(span.to_json() for span in found)


async def test_a_shutdown_of_the_sdk_that_does_not_end_holds_up_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(otel_traces, "FLUSH_LIMIT", 0.05)
    monkeypatch.setattr(TracerProvider, "shutdown", lambda _: over.wait(limit(60)))
    try:
        async with asyncio.timeout(limit(10)):
            async with otel_traces.open_otel("http://127.0.0.1:9", "me"):
                pass
    finally:
        over.set()

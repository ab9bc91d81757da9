"""A turn is one trace, over API and executors, also when its executor dies."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.e2e.chat_api import asked, open_session
from tests.e2e.sse import PACE, words_for
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.owners import executor_named, owner_of, postgres_connection
from tests.servers.otlp import Collector, attributes_of, collector
from tests.speed import limit

SECRET = "a sentence of the user"


@pytest.fixture
def spans() -> Iterator[Collector]:
    with collector() as found:
        yield found


def traced(spans: Collector, **settings: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": spans.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **settings}


def trace_of(task: str) -> bytes:
    return sha256(task.encode()).digest()[:16]


async def test_a_turn_is_one_trace_from_the_request_to_its_end(
    servers: Servers, spans: Collector, tmp_path: Path
) -> None:
    async with open_stack(servers, tmp_path, **traced(spans)) as stack, stack.client(new_user()) as http:
        session = await open_session(http)
        async with asked(
            http, session, f'/say {SECRET}\n/tool find_library_agent {{"query": "x"}}\n/then\n/say Done'
        ) as turn:
            await turn.rest()
        found = await spans.spans_named(
            "accept message", "invoke_agent", "execute_tool find_library_agent", "commit end"
        )
    mine = [span for span in found if span.trace_id == trace_of(turn.task_id)]
    assert len(mine) == len(found)
    by_id = {span.span_id: span for span in mine}
    (root,) = (span for span in mine if not span.parent_span_id)
    assert root.name == "accept message"
    (attempt,) = (span for span in mine if span.name == "invoke_agent")
    assert by_id[attempt.parent_span_id] is root
    for span in mine:
        assert span is root or span.parent_span_id in by_id
    (first, second) = (attributes_of(span) for span in mine if span.name.startswith("chat "))
    for call in (first, second):
        assert call["gen_ai.operation.name"] == "chat"
        assert call["gen_ai.usage.output_tokens"] > 0
        assert 0 <= call["gen_ai.response.time_to_first_chunk"] < limit(30)
    assert attributes_of(attempt)["copilot.status"] == "completed"
    assert SECRET not in str(found)


async def test_a_takeover_is_linked_to_the_attempt_that_died(
    servers: Servers, spans: Collector, tmp_path: Path
) -> None:
    async with open_stack(servers, tmp_path, executors=2, **traced(spans)) as stack, stack.client(new_user()) as http:
        session = await open_session(http)
        async with asked(http, session, f"/stream {words_for(2)} {PACE}") as turn:
            await turn.until(5)
            await kill_owner(stack, turn.task_id)
            await turn.rest()
        found = await spans.spans_named("invoke_agent")
    (attempt,) = (span for span in found if span.name == "invoke_agent")
    assert attempt.trace_id == trace_of(turn.task_id)
    assert attributes_of(attempt)["copilot.attempt"] == 2
    (link,) = attempt.links
    assert (link.trace_id, link.span_id) == (attempt.trace_id, sha256(f"{turn.task_id} 1".encode()).digest()[:8])


async def kill_owner(stack: Stack, task: str) -> None:
    async with postgres_connection(stack.servers.postgres) as c:
        owner = await owner_of(c, task)
    assert owner is not None
    executor = executor_named(stack, owner)
    assert executor is not None
    executor.send(signal.SIGKILL)
    await executor.ended()


async def test_a_collector_that_is_away_delays_no_turn(servers: Servers, tmp_path: Path) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    async with open_stack(servers, tmp_path, **settings) as stack, stack.client(new_user()) as http:
        async with asked(http, await open_session(http), "/stream 3") as turn:
            await turn.rest()
        assert turn.done

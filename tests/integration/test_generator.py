"""Tests of the client of the agent generator against the generator of examples/ in another process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backend.config import Settings
from backend.ids import OperationId, TaskId
from backend.json_client.calls import CallLimits
from executor.generator import (
    AgentMade,
    ClarifyingQuestions,
    ErrorType,
    GeneratorFailure,
    Instructions,
    Pending,
    UnachievableGoal,
    VagueGoal,
    Work,
    open_generator,
)
from executor.generator.client import Generator
from executor.generator.failures import SENTENCES
from tests.plain_http import http_client
from tests.servers.generator import GeneratorNode
from tests.servers.receiver import receiver
from tests.speed import limit

QUICK = CallLimits(total=limit(20), tries=3, connect=limit(5), backoff=0.01)
TASK = TaskId("task-of-the-test")
AGENT = {
    "id": "a-1",
    "version": 3,
    "name": "Old",
    "description": "It works",
    "is_active": True,
    "nodes": [],
    "links": [],
}
GOAL = "Every morning at 8 search the web for news about coffee, summarize them and mail me the summary"


def new_operation() -> OperationId:
    return OperationId(str(uuid.uuid4()))


@asynccontextmanager
async def opened(
    host: str, port: int, limits: CallLimits = QUICK, *, connections: int = 64
) -> AsyncIterator[Generator]:
    settings = Settings(agentgenerator_host=host, agentgenerator_port=port, executor_concurrency=connections)
    async with open_generator(settings, limits) as client:
        assert client is not None
        yield client


@pytest.fixture
async def client(generator: GeneratorNode) -> AsyncIterator[Generator]:
    async with opened(generator.host, generator.port) as client:
        yield client


async def failure_of(client: Generator, line: str, operation: OperationId | None = None) -> GeneratorFailure:
    """Sends work with the directive `line`, which must fail, and returns the failure."""
    with pytest.raises(GeneratorFailure) as caught:
        await client.send(Work.update(f"More. [generator: {line}]", AGENT), operation or new_operation(), TASK)
    return caught.value


async def works_of(generator: GeneratorNode, operation: OperationId) -> dict[str, Any] | None:
    async with http_client(base_url=generator.url) as http:
        works = (await http.get("/works")).json()
    return next((work for work in works if work["key"] == operation), None)


# --- descriptions -------------------------------------------------------------------------------------------------


async def test_a_good_description_becomes_instructions(client: Generator) -> None:
    answer = await client.decompose(GOAL)
    assert isinstance(answer, Instructions)
    assert answer.steps[0]["block_name"] == "Schedule Trigger"
    assert len(answer.steps) > 2


@pytest.mark.parametrize("description", ["Help me", "an agent please", "do something"])
async def test_a_vague_description_gets_a_better_one(client: Generator, description: str) -> None:
    answer = await client.decompose(description)
    assert isinstance(answer, VagueGoal)
    assert isinstance(await client.decompose(answer.suggested_goal), Instructions)


async def test_an_unachievable_description_gets_a_reason_and_a_suggestion(client: Generator) -> None:
    answer = await client.decompose("Every day, read the minds of my customers and guarantee that they buy")
    assert isinstance(answer, UnachievableGoal)
    assert "minds" in answer.reason
    assert isinstance(await client.decompose(answer.suggested_goal), Instructions)


async def test_an_incomplete_description_gets_questions_until_it_is_answered(client: Generator) -> None:
    description = "Summarize the news about coffee and mail the summary"
    answer = await client.decompose(description)
    assert isinstance(answer, ClarifyingQuestions)
    assert answer.questions[0].keyword == "trigger"
    assert isinstance(await client.decompose(description, user_instruction="every morning"), Instructions)


async def test_agents_of_the_library_are_used_by_name(client: Generator) -> None:
    answer = await client.decompose(
        f"{GOAL}, then run Coffee Post", library_agents=[{"id": "x", "name": "Coffee Post"}]
    )
    assert isinstance(answer, Instructions)
    assert "Agent: Coffee Post" in [step["block_name"] for step in answer.steps]


async def test_a_failed_description_raises_a_generator_failure(client: Generator) -> None:
    with pytest.raises(GeneratorFailure) as caught:
        await client.decompose(f"{GOAL} [generator: decompose fail error_type=llm_parse_error]")
    assert caught.value.error_type is ErrorType.LLM_PARSE_ERROR


async def test_a_description_cannot_be_accepted_for_later(client: Generator) -> None:
    with pytest.raises(GeneratorFailure) as caught:
        await client.decompose(f"{GOAL} [generator: decompose status=202]")
    assert caught.value.error_type is ErrorType.INVALID_RESPONSE


# --- work ---------------------------------------------------------------------------------------------------------


async def test_a_new_agent_has_linked_nodes(client: Generator) -> None:
    goal = await client.decompose(f"{GOAL}\n[generator: 200]")
    assert isinstance(goal, Instructions)
    made = await client.send(Work.generate(goal), new_operation(), TASK)
    assert isinstance(made, AgentMade)
    agent = made.agent_json
    assert set(agent) == {"id", "version", "is_active", "name", "description", "nodes", "links"} | {
        "input_schema",
        "output_schema",
    }
    nodes = {node["id"] for node in agent["nodes"]}
    assert len(nodes) == len(agent["nodes"]) > 2
    assert len(agent["links"]) == len(nodes) - 1
    assert {link["source_id"] for link in agent["links"]} | {link["sink_id"] for link in agent["links"]} == nodes
    assert "[generator" not in str(agent)


async def test_a_changed_agent_keeps_its_id(client: Generator) -> None:
    work = Work.update("Mail it to me and call it Morning Post [generator: 200]", AGENT)
    made = await client.send(work, new_operation(), TASK)
    assert isinstance(made, AgentMade)
    assert (made.agent_json["id"], made.agent_json["version"], made.agent_json["name"]) == ("a-1", 4, "Morning Post")
    assert len(made.agent_json["nodes"]) == 1


async def test_an_agent_from_a_template_gets_its_own_id(client: Generator) -> None:
    work = Work.modify_template(AGENT, "In German, please [generator: 200]", "for my shop")
    made = await client.send(work, new_operation(), TASK)
    assert isinstance(made, AgentMade)
    assert made.agent_json["id"] != AGENT["id"]
    assert made.agent_json["name"] == "Old"


async def test_work_may_end_with_questions(client: Generator) -> None:
    answer = await client.send(Work.update("More [generator: 200 clarify]", AGENT), new_operation(), TASK)
    assert isinstance(answer, ClarifyingQuestions)


@pytest.mark.parametrize("way", ["202-stream late=20", "202-webhook late=20"])
async def test_work_may_be_accepted_for_later(client: Generator, way: str) -> None:
    answer = await client.send(Work.update(f"More [generator: {way}]", AGENT), new_operation(), TASK)
    assert answer == Pending()


async def test_work_is_sent_as_the_same_bytes_each_time() -> None:
    async with receiver() as inbox, opened("127.0.0.1", inbox.port) as client:
        inbox.answer_with([503, 202, 202])
        work, operation = Work.update("More", AGENT), new_operation()
        for again in (work, Work.from_json(work.as_json())):
            assert await client.send(again, operation, TASK) == Pending()
        requests = [await inbox.next() for _ in range(3)]
    assert len({request.body for request in requests}) == 1
    assert {request.headers["idempotency-key"] for request in requests} == {operation}
    assert {request.path for request in requests} == {"/api/update-agent"}
    assert requests[0].json() == {
        "update_request": "More", "current_agent_json": AGENT, "operation_id": operation, "task_id": TASK,
        "callback_url": f"http://127.0.0.1:8006/api/chat/operations/{operation}/complete",
    }  # fmt: skip


# --- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["validation_error", "patch_error", "llm_parse_error"])
async def test_failed_work_reports_its_error_type(client: Generator, kind: str) -> None:
    failure = await failure_of(client, f"200 fail error_type={kind}")
    assert failure.error_type == kind
    assert failure.details["details"] == {"step": 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "rate_limit"), (503, "service_unavailable"), (504, "timeout"), (408, "timeout"), (400, "http_error"),
        (401, "http_error"), (404, "http_error"), (422, "http_error"), (500, "http_error"), (502, "http_error"),
        (302, "http_error"), (307, "http_error"), (201, "http_error"),
    ],
)  # fmt: skip
async def test_each_status_has_its_error_type(client: Generator, status: int, kind: str) -> None:
    failure = await failure_of(client, f"status={status}")
    assert failure.error_type == kind
    assert failure.message == SENTENCES[ErrorType(kind)]
    assert failure.details == {"status": status}


@pytest.mark.parametrize("fault", ["malformed", "huge"])
async def test_an_unreadable_answer_is_an_invalid_response(client: Generator, fault: str) -> None:
    assert (await failure_of(client, fault)).error_type is ErrorType.INVALID_RESPONSE


async def test_a_compressed_answer_is_not_decompressed() -> None:
    async with receiver() as inbox, opened("127.0.0.1", inbox.port) as client:
        inbox.headers["content-encoding"] = "gzip"
        assert (await failure_of(client, "200")).error_type is ErrorType.INVALID_RESPONSE
        assert not await client.healthy()
        assert (await inbox.next()).headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("fault", ["status=429 retry-after=0", "status=503", "drop"])
async def test_a_temporary_failure_is_retried(client: Generator, fault: str) -> None:
    made = await client.send(Work.update(f"More [generator: 200 {fault} times=2]", AGENT), new_operation(), TASK)
    assert isinstance(made, AgentMade)


@pytest.mark.parametrize("fault", ["status=500", "status=408", "status=504", "status=400", "malformed"])
async def test_a_permanent_failure_is_not_retried(client: Generator, fault: str) -> None:
    await failure_of(client, f"200 {fault} times=1")


async def test_a_connection_that_breaks_each_time_is_a_connection_error(client: Generator) -> None:
    assert (await failure_of(client, "drop")).error_type is ErrorType.CONNECTION_ERROR


async def test_a_closed_port_is_a_connection_error(free_port: int) -> None:
    async with opened("127.0.0.1", free_port) as client:
        assert (await failure_of(client, "200")).error_type is ErrorType.CONNECTION_ERROR
        assert not await client.healthy()


async def test_an_unknown_host_is_a_connection_error() -> None:
    async with opened("no-such-host.invalid", 8000) as client:
        assert (await failure_of(client, "200")).error_type is ErrorType.CONNECTION_ERROR


async def test_a_call_longer_than_its_limit_is_a_timeout(generator: GeneratorNode) -> None:
    async with opened(generator.host, generator.port, CallLimits(total=0.5)) as client:
        assert (await failure_of(client, "200 delay=600")).error_type is ErrorType.TIMEOUT


async def test_a_retry_that_would_come_too_late_is_not_waited_for(generator: GeneratorNode) -> None:
    limits = CallLimits(total=limit(20), backoff=0.01, longest_wait=limit(60))
    async with opened(generator.host, generator.port, limits) as client:
        failure = await failure_of(client, "status=429 retry-after=3600")  # a wait would end as a timeout
    assert failure.error_type is ErrorType.RATE_LIMIT


async def test_a_long_retry_after_is_cut_to_the_longest_wait(generator: GeneratorNode) -> None:
    limits = CallLimits(total=limit(60), backoff=0.01, longest_wait=0.05)
    async with opened(generator.host, generator.port, limits) as client:
        work = Work.update("More [generator: 200 status=429 retry-after=3600 times=2]", AGENT)
        assert isinstance(await client.send(work, new_operation(), TASK), AgentMade)


async def test_a_cancelled_call_returns_its_connection_to_the_pool(generator: GeneratorNode) -> None:
    async with opened(generator.host, generator.port, connections=1) as client:
        for _ in range(3):
            operation = new_operation()
            job = asyncio.ensure_future(failure_of(client, "200 delay=10", operation))
            await wait_until_started(generator, operation)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
        assert isinstance(await client.send(Work.update("[generator: 200]", AGENT), new_operation(), TASK), AgentMade)


async def wait_until_started(generator: GeneratorNode, operation: OperationId) -> None:
    async with asyncio.timeout(limit(20)):
        while not await works_of(generator, operation):
            await asyncio.sleep(0.02)  # between two checks of a bounded wait


async def test_a_proxy_in_the_environment_is_not_used(
    generator: GeneratorNode, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    async with opened(generator.host, generator.port) as client:
        assert await client.healthy()


async def test_a_running_generator_is_healthy(client: Generator) -> None:
    assert await client.healthy()


# --- repeated work ------------------------------------------------------------------------------------------------


async def test_repeated_work_gets_the_same_answer_and_is_done_once(client: Generator, generator: GeneratorNode) -> None:
    work, operation = Work.update("More [generator: 200 delay=0.2]", AGENT), new_operation()
    answers = await asyncio.gather(*(client.send(work, operation, TASK) for _ in range(20)))
    answers.append(await client.send(Work.from_json(work.as_json()), operation, TASK))
    assert isinstance(answers[0], AgentMade)
    assert answers == answers[:1] * 21
    assert await works_of(generator, operation) == {"key": operation, "asked": 21, "done": 1}


async def test_work_that_timed_out_is_answered_when_it_is_requested_again(
    generator: GeneratorNode, client: Generator
) -> None:
    work, operation = Work.update(f"More [generator: 200 delay={limit(1.5)}]", AGENT), new_operation()
    async with opened(generator.host, generator.port, CallLimits(total=limit(0.6))) as impatient_client:
        with pytest.raises(GeneratorFailure) as caught:
            await impatient_client.send(work, operation, TASK)
        assert caught.value.error_type is ErrorType.TIMEOUT
    assert isinstance(await client.send(work, operation, TASK), AgentMade)
    assert await works_of(generator, operation) == {"key": operation, "asked": 2, "done": 1}


async def test_different_work_under_the_same_operation_is_refused(client: Generator) -> None:
    operation = new_operation()
    await client.send(Work.update("More [generator: 200]", AGENT), operation, TASK)
    assert (await failure_of(client, "200", operation)).error_type is ErrorType.HTTP_ERROR

"""Tests of the outcomes that the generator of examples/ delivers to a webhook and to a Redis stream."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from standardwebhooks import Webhook

from tests.plain_http import http_client
from tests.servers.generator import API_KEY, WEBHOOK_SECRET, GeneratorNode, generator_node
from tests.servers.receiver import Receiver, receiver
from tests.servers.redis import RedisNode
from tests.speed import limit


@pytest.fixture
async def inbox() -> AsyncIterator[Receiver]:
    async with receiver() as inbox:
        yield inbox


async def ask(generator: GeneratorNode, line: str, callback: str | None, *, status: int = 202) -> str:
    """Requests a changed agent and returns the id of the operation."""
    operation = str(uuid.uuid4())
    body = {
        "update_request": f"More [generator: {line}]", "current_agent_json": {"id": "a", "name": "A"},
        "operation_id": operation, "task_id": "t", "callback_url": callback,
    }  # fmt: skip
    async with http_client(base_url=generator.url) as client:
        response = await client.post("/api/update-agent", json=body, headers={"idempotency-key": operation})
    assert response.status_code == status, response.text
    return operation


async def test_an_outcome_is_delivered_with_a_signature(generator: GeneratorNode, inbox: Receiver) -> None:
    operation = await ask(generator, "202-webhook", inbox.url("/api/chat/operations/o/complete"))
    request = await inbox.next()
    assert (request.method, request.path) == ("POST", "/api/chat/operations/o/complete")
    outcome = Webhook(WEBHOOK_SECRET).verify(request.body, request.headers)
    assert set(outcome) == {"success", "result"}
    assert outcome["success"] is True
    assert outcome["result"]["agent_json"]["id"] == "a"
    assert request.headers["webhook-id"] == f"msg_{operation}"
    assert "x-api-key" not in request.headers


async def test_an_outcome_is_delivered_with_the_api_key_if_requested(generator: GeneratorNode, inbox: Receiver) -> None:
    await ask(generator, "202-webhook keyed", inbox.url("/complete"))
    request = await inbox.next()
    assert request.headers["x-api-key"] == API_KEY
    assert "webhook-signature" not in request.headers


async def test_a_failure_is_delivered_with_its_error_type_and_text(generator: GeneratorNode, inbox: Receiver) -> None:
    await ask(generator, "202-webhook fail error_type=validation_error", inbox.url("/complete"))
    outcome = (await inbox.next()).json()
    assert set(outcome) == {"success", "error"}
    assert outcome["success"] is False
    assert outcome["error"].startswith("validation_error: ")


async def test_an_outcome_is_delivered_again_until_it_is_accepted(generator: GeneratorNode, inbox: Receiver) -> None:
    inbox.answer_with([500, 503, 302, 204])
    await ask(generator, "202-webhook duplicate=2", inbox.url("/complete"))
    tries = [await inbox.next() for _ in range(5)]
    assert {request.path for request in tries} == {"/complete"}
    assert len({request.body for request in tries}) == 1
    assert len({request.headers["webhook-id"] for request in tries}) == 1
    for request in tries:
        Webhook(WEBHOOK_SECRET).verify(request.body, request.headers)


async def test_a_refused_outcome_is_not_delivered_again(generator: GeneratorNode, inbox: Receiver) -> None:
    inbox.answer_with([404])
    await ask(generator, "202-webhook duplicate=2 progress=1", inbox.url("/complete"))  # the progress report is refused
    paths = [(await inbox.next()).path for _ in range(3)]
    assert paths == ["/progress", "/complete", "/complete"]
    inbox.answer_with([409])
    await ask(generator, "202-webhook duplicate=2", inbox.url("/first"))
    assert [(await inbox.next()).path for _ in range(2)] == ["/first", "/first"]
    assert inbox.waiting == 0


async def test_a_receiver_that_was_unavailable_gets_the_outcome_later(
    generator: GeneratorNode, inbox: Receiver
) -> None:
    await inbox.stop()
    operation = await ask(generator, "202-webhook", inbox.url("/complete"))
    await wait_for_log(generator, f"the outcome of operation {operation} was not accepted yet")
    await inbox.listen()
    assert (await inbox.next()).json()["success"]


async def wait_for_log(generator: GeneratorNode, text: str) -> None:
    async with asyncio.timeout(limit(20)):
        while text not in generator.log.read_text():
            await asyncio.sleep(0.02)  # between two checks of a bounded wait


async def test_an_outcome_may_be_delivered_several_times(generator: GeneratorNode, inbox: Receiver) -> None:
    await ask(generator, "202-webhook duplicate 3", inbox.url("/complete"))
    assert len({(await inbox.next()).body for _ in range(3)}) == 1


async def test_progress_is_reported_before_the_outcome(generator: GeneratorNode, inbox: Receiver) -> None:
    await ask(generator, "202-webhook progress", inbox.url("/operations/o/complete"))
    requests = [await inbox.next() for _ in range(4)]
    assert [request.path for request in requests] == ["/operations/o/progress"] * 3 + ["/operations/o/complete"]
    assert [request.json()["percent"] for request in requests[:3]] == [25, 50, 75]
    for request in requests:
        Webhook(WEBHOOK_SECRET).verify(request.body, request.headers)


async def test_outcomes_are_delivered_through_the_redis_stream_as_well(
    private_redis: RedisNode, tmp_path: Path
) -> None:
    async with (
        generator_node(tmp_path, redis=private_redis.dsn, GENERATOR_ANSWER="stream") as generator,
        Redis.from_url(private_redis.dsn, decode_responses=True) as redis,
    ):
        made = await ask(generator, "duplicate=2", None)
        entries = await wait_for_entries(redis, "0-0", 2)
        documents = [json.loads(fields["data"]) for _, fields in entries]
        assert [set(fields) for _, fields in entries] == [{"data"}] * 2
        assert documents[0] == documents[1]
        assert set(documents[0]) == {"operation_id", "task_id", "success", "result"}
        assert (documents[0]["operation_id"], documents[0]["task_id"]) == (made, "t")
        failed = await ask(generator, "202-stream fail", None)
        [(_, fields)] = await wait_for_entries(redis, entries[-1][0], 1)
        outcome = json.loads(fields["data"])
        assert set(outcome) == {"operation_id", "task_id", "success", "error"}
        assert (outcome["operation_id"], outcome["success"]) == (failed, False)


async def wait_for_entries(redis: Redis, after: str, count: int) -> list[Any]:
    """Waits for `count` entries after the id `after` and returns them."""
    entries: list[Any] = []
    async with asyncio.timeout(limit(20)):
        while len(entries) < count:
            last = entries[-1][0] if entries else after
            for _, found in await redis.xread({"chat:completions": last}, block=1_000) or []:
                entries += found
    return entries


async def test_work_whose_outcome_could_not_be_delivered_is_refused(tmp_path: Path, inbox: Receiver) -> None:
    async with generator_node(tmp_path, GENERATOR_CALLBACK_BASE=inbox.url("/api/")) as generator:
        await ask(generator, "202-webhook", None, status=422)
        await ask(generator, "202-stream", inbox.url("/api/complete"), status=422)
        await ask(generator, "202-webhook", inbox.url("/elsewhere/complete"), status=422)
        await ask(generator, "no-such-word", inbox.url("/api/complete"), status=400)
        await ask(generator, "202-webhook", inbox.url("/api/complete"))
        assert (await inbox.next()).path == "/api/complete"


async def test_a_generator_without_secrets_sends_none(tmp_path: Path, inbox: Receiver) -> None:
    async with generator_node(tmp_path, GENERATOR_API_KEY="", GENERATOR_WEBHOOK_SECRET="") as generator:
        await ask(generator, "202-webhook", inbox.url("/complete"))
        assert not {"x-api-key", "webhook-id"} & set((await inbox.next()).headers)


async def test_the_log_contains_no_secret(generator: GeneratorNode, inbox: Receiver) -> None:
    inbox.answer_with([500])
    operation = await ask(generator, "202-webhook keyed", inbox.url("/complete"))
    await wait_for_log(generator, f"outcome 1 of 1 of operation {operation}")
    assert API_KEY not in generator.log.read_text()
    assert WEBHOOK_SECRET not in generator.log.read_text()

"""Tests of unusual outcomes, after which the conversation can still be read and continued."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from backend.chat.keys import COMPLETIONS
from tests.fakes.outside_work import OutsideToolbox
from tests.integration.running_api import LIMIT, RunningApi, running_api
from tests.integration.test_operations import begin, complete, result_of

MAKE_AGENT = '/tool outside_work {"use": "save_agent"}'
LONG_INTEGER = "9" * 400


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, toolbox=OutsideToolbox) as resources:
        yield resources


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


async def assert_readable_and_continues(api: RunningApi, session: str, mine: dict[str, str]) -> None:
    for format in ("rows", "ui"):
        await api.session(session, mine, format=format)
    assert (await api.say(session, "/stream 3", mine)).text == "0 1 2 "


@pytest.mark.parametrize(
    "nodes",
    [f"[{LONG_INTEGER}]", f"[NaN, {LONG_INTEGER[:40]}]", "[1e400]", nested(100), nested(253), nested(300), nested(900)],
    ids=["long integer", "not a number", "infinite", "100 levels", "253 levels", "300 levels", "900 levels"],
)
async def test_an_agent_given_as_text_is_parsed_as_strictly_as_any_json(api: RunningApi, nodes: str) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine, MAKE_AGENT)
    answer = await complete(api, started["operation_id"], result=f'{{"nodes": {nodes}}}')
    assert answer.status_code == 200, answer.text
    assert (await api.ended(started["task_id"], mine)).chunks[-1]["messageMetadata"]["status"] == "completed"
    assert result_of(await api.session(session, mine))["type"] == "error"
    await assert_readable_and_continues(api, session, mine)


@pytest.mark.parametrize("levels", [33, 252, 300, 900])
async def test_an_outcome_in_the_stream_has_the_same_depth_limit_as_a_webhook(api: RunningApi, levels: int) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    data = f'{{"operation_id": "{started["operation_id"]}", "success": true, "result": {{"x": {nested(levels)}}}}}'
    redis = api.resources.redis
    first = await redis.xadd(COMPLETIONS, {"data": data})
    async with asyncio.timeout(LIMIT):  # the refused entry stays pending
        while not await redis.xpending_range(COMPLETIONS, "chat_consumers", first, first, 1):
            await asyncio.sleep(0.02)
    await redis.xadd(COMPLETIONS, {"data": json.dumps({"operation_id": started["operation_id"], "success": False})})
    await api.ended(started["task_id"], mine)
    assert result_of(await api.session(session, mine))["error"] == "operation_failed"
    await redis.xack(COMPLETIONS, "chat_consumers", first)
    await assert_readable_and_continues(api, session, mine)


async def test_a_result_that_claims_to_be_pending_is_stored_as_data(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    result_sent = {"type": "operation_pending", "operation_id": started["operation_id"], "tool_name": "outside_work"}
    assert (await complete(api, started["operation_id"], result=result_sent)).status_code == 200
    await api.ended(started["task_id"], mine)
    result = result_of(await api.session(session, mine))
    assert (result["type"], result["outputs"]) == ("block_output", result_sent)


async def test_the_link_to_an_agent_escapes_its_id(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine, MAKE_AGENT)
    agent = {"id": '1&admin=1#" onclick', "name": "x", "nodes": [{"id": "a"}], "links": []}
    assert (await complete(api, started["operation_id"], result={"agent_json": agent})).status_code == 200
    await api.ended(started["task_id"], mine)
    link = result_of(await api.session(session, mine))["agent_page_link"]
    assert link == "/build?flowID=1%26admin%3D1%23%22%20onclick"

"""Tests of tools that the user's page carries out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.integration.running_api import RunningApi, outputs_in, running_api
from tests.speed import limit
from tests.sse_client import StrictClient

WHERE = {
    "name": "get_location",
    "description": "Where the user is.",
    "parameters": {"type": "object", "properties": {"precise": {"type": "boolean"}}},
}
CALL = '/tool get_location {"precise": true}'


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


async def call(api: RunningApi, mine: dict[str, str], text: str = CALL) -> tuple[str, list[dict[str, Any]]]:
    session = await api.new_session(mine)
    client = await api.say(session, text, mine, page_tools=[WHERE])
    return session, [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]


async def answer(api: RunningApi, waiting: dict[str, Any], mine: dict[str, str], **body: Any) -> httpx.Response:
    return await api.http.post(f"/api/chat/operations/{waiting['operation_id']}/answer", json=body, headers=mine)


async def test_a_call_of_the_page_waits_until_a_page_answers_it(api: RunningApi) -> None:
    mine = api.as_user()
    session, (waiting,) = await call(api, mine)
    assert (waiting["type"], waiting["asks"]) == ("operation_started", "page_tool")
    (pending,) = (await api.session(session, mine))["operations"]
    assert pending["asks"] == {"kind": "page_tool", "text": "get_location", "input": {"precise": True}}
    for body in ({"answer": "x"}, {"approved": True}, {"output": 1, "error": "x"}, {"declined": True}):
        assert (await answer(api, waiting, mine, **body)).status_code == 422
    assert (await answer(api, waiting, mine, output={"lat": 1.5})).status_code == 200
    continued = await api.ended(waiting["task_id"], mine)
    assert continued.text == "The work of get_location has ended: The page has done it."
    (output,) = outputs_in(await api.session(session, mine))
    assert (output["type"], output["outputs"]) == ("block_output", {"lat": 1.5})


async def test_the_model_gets_the_error_of_a_page(api: RunningApi) -> None:
    mine = api.as_user()
    session, (waiting,) = await call(api, mine)
    assert (await answer(api, waiting, mine, error="The user forbids it.")).status_code == 200
    assert "forbids" in (await api.ended(waiting["task_id"], mine)).text
    (output,) = outputs_in(await api.session(session, mine))
    assert (output["type"], output["error"]) == ("error", "page_tool_failed")


async def test_other_turns_do_not_have_the_tools(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, CALL, mine)
    (output,) = outputs_in(await api.session(session, mine))
    assert output["error"] == "unknown_tool"


async def test_a_tool_of_the_server_is_not_replaced_by_one_of_the_page(api: RunningApi) -> None:
    session = await api.new_session()
    named = [{"name": "search_docs"}]
    await api.say(session, '/tool search_docs {"query": "stream"}', page_tools=named)
    (output,) = outputs_in(await api.session(session))
    assert output["type"] in ("doc_search_results", "no_results")


@pytest.mark.parametrize(
    "wrong",
    [
        [{"name": "a b"}], [{"name": "x" * 65}], [{}], [WHERE, WHERE], [{"name": "a", "parameters": []}],
        [{"name": f"t{n}"} for n in range(17)], [{"name": "a", "parameters": {"x": "y" * 40_000}}],
    ],
)  # fmt: skip
async def test_wrong_or_too_many_tools_are_refused(api: RunningApi, wrong: Any) -> None:
    session = await api.new_session()
    reply = await api.http.post(f"/api/chat/sessions/{session}/stream", json={"message": "x", "page_tools": wrong})
    assert reply.status_code == 422


async def test_clients_of_the_sdk_get_the_call_as_their_own_and_answer_in_the_next_post(api: RunningApi) -> None:
    mine = api.as_user()
    session, accept = await api.new_session(mine), {"accept": "page-tools"}
    said = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": CALL}]}
    turn = {"id": session, "messages": [said], "page_tools": [WHERE]}
    async with (
        asyncio.timeout(limit(60)),
        api.http.stream("POST", "/api/chat", json=turn, headers=mine, params=accept) as raw,
    ):
        lines = [line async for line in raw.aiter_lines() if line.startswith("data: {")]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    calls = [chunk for chunk in chunks if chunk["type"].startswith("tool-input-")]
    assert all("providerExecuted" not in chunk for chunk in calls)
    assert not [chunk for chunk in chunks if chunk["type"] == "tool-output-available"]
    shown = (await api.session(session, mine, format="ui", **accept))["messages"]
    (part,) = [part for part in shown[-1]["parts"] if part["type"] == "dynamic-tool"]
    assert (part["state"], "providerExecuted" in part, "output" in part) == ("input-available", False, False)
    part |= {"state": "output-available", "output": {"lat": 2}}
    posted = {"id": session, "trigger": "submit-message", "messageId": shown[-1]["id"], "messages": shown}
    thief = await api.http.post("/api/chat", json=posted, headers=api.as_user())
    assert thief.status_code == 404
    client = StrictClient(continues=True)
    reply, _ = await api.read("POST", "/api/chat", json=posted, headers=mine, params=accept, client=client)
    assert reply.status_code == 200
    assert client.chunks[0] == {"type": "start", "messageId": shown[-1]["id"]}
    assert client.text
    assert outputs_in(await api.session(session, mine))[0]["outputs"] == {"lat": 2}

"""The dialogue of AutoGPT's copilot page, as its sources have it, played against this server.

Read in Significant-Gravitas/AutoGPT, autogpt_platform/frontend/src/app/(platform)/copilot, at commits 01a19285 and
01a92184 of 2026: copilotStreamTransport.ts, useChatSession.ts, useLoadMoreMessages.ts, useCopilotStop.ts, helpers.ts
and helpers/convertChatSessionToUiMessages.ts. Bodies, statuses and fields are those; the code is not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api
from tests.sse_client import StrictClient

Headers = dict[str, str]
NOTHING = {"context": None, "file_ids": None, "mode": None, "model": None}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, tool_parts="static") as api:
        yield api


def message(text: str, **fields: Any) -> dict[str, Any]:
    return {"message": text, "is_user_message": True, **NOTHING, "idempotency_key": new_id(), **fields}


async def create(api: RunningApi, mine: Headers, body: str = "null") -> str:
    headers = {**mine, "content-type": "application/json"}
    made = await api.http.post("/api/chat/sessions", content=body, headers=headers)
    assert made.status_code == 200  # any other status is "Could not start a new chat session"
    id: str = made.json()["id"]
    return id


async def send(api: RunningApi, session: str, mine: Headers, text: str, **fields: Any) -> StrictClient:
    answer, client = await api.read(
        "POST",
        f"/api/chat/sessions/{session}/stream",
        client=StrictClient(static_tools=True),
        json=message(text, **fields),
        headers=mine,
    )
    assert answer.status_code == 200, answer.text
    assert client.done
    return client


def cards(rows: list[Any]) -> list[tuple[str, Any, Any]]:
    """Makes what the page makes of rows: each tool call as a part type, with its input and output."""
    outputs = {row["tool_call_id"]: row["content"] for row in rows if row["role"] == "tool"}
    calls = [call for row in rows for call in row["tool_calls"] or []]
    return [
        (f"tool-{call['function']['name']}", json.loads(call["function"]["arguments"]), json.loads(outputs[call["id"]]))
        for call in calls
    ]


@pytest.mark.parametrize(
    "body", ["null", "{}", '{"dry_run": false}', '{"llm_auth_provider": "platform"}', '{"x": null}']
)
async def test_a_chat_is_started(api: RunningApi, body: str) -> None:
    mine = api.as_user()
    (transport,) = (await api.http.get("/api/chat/transports", headers=mine)).json()["transports"]
    assert (transport["auth_provider"], transport["available"], transport["default"]) == ("platform", True, True)
    id = await create(api, mine, body)
    listed = (await api.http.get("/api/chat/sessions", params={"limit": 50, "offset": 0}, headers=mine)).json()
    assert [(one["id"], one["is_processing"]) for one in listed["sessions"]] == [(id, False)]
    assert (await api.http.get(f"/api/chat/sessions/{id}/stream", headers=mine)).status_code == 204


async def test_tool_cards_are_the_same_live_and_after_a_reload(api: RunningApi) -> None:
    mine = api.as_user()
    id = await create(api, mine)
    live = await send(api, id, mine, '/tool add_understanding {"name":"Ada"}')
    (call,) = [part for part in live.parts if part["type"] == "tool"]
    read = await api.session(id, mine)
    assert [row["role"] for row in read["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert cards(read["messages"]) == [("tool-add_understanding", call["input"], call["output"])]
    assert read["messages"][2]["name"] == "add_understanding"
    assert read["messages"][-1]["content"] == live.text
    assert len({row["id"] for row in read["messages"]}) == 4
    (_, answer) = (await api.session(id, mine, format="ui"))["messages"]
    assert [part["type"] for part in answer["parts"]][1] == "tool-add_understanding"
    assert "toolName" not in answer["parts"][1]


async def test_a_page_may_choose_the_form_of_tool_parts_itself(api: RunningApi) -> None:
    mine = api.as_user()
    id = await create(api, mine)
    path = f"/api/chat/sessions/{id}/stream?accept=dynamic-tools"
    body = message('/tool add_understanding {"name":"Ada"}')
    dynamic = (await api.read("POST", path, json=body, headers=mine))[1]
    again = await send(api, id, mine, body["message"], idempotency_key=body["idempotency_key"])
    assert dynamic.done
    assert dynamic.chunks[0] == again.chunks[0]
    (_, answer) = (await api.session(id, mine, format="ui", accept="dynamic-tools"))["messages"]
    assert answer["parts"][1]["type"] == "dynamic-tool"


async def test_a_page_reloads_in_mid_answer_sends_a_second_message_and_stops(api: RunningApi) -> None:
    mine = api.as_user()
    id = await create(api, mine)
    stream, pending = f"/api/chat/sessions/{id}/stream", f"/api/chat/sessions/{id}/messages/pending"
    early = await api.http.post(pending, json={"message": "too early", "context": None, "file_ids": None}, headers=mine)
    assert (early.status_code, early.json()["code"]) == (409, "no_active_turn")
    async with api.http.stream("POST", stream, json=message("/stream 2000 20"), headers=mine) as answer:
        await anext(answer.aiter_raw())
    await api.active_stream(id, mine)
    assert (await api.http.delete(stream, headers=mine)).status_code == 204  # the page was left
    read = await api.session(id, mine)
    assert (read["chat_status"], read["has_more_messages"], read["oldest_sequence"]) == ("running", False, 1)
    assert read["active_stream"]["turn_id"] == read["active_stream"]["task_id"]
    assert read["active_stream"]["last_message_id"] == "0-0"
    assert read["active_stream"]["started_at"].endswith("Z")
    assert [row["role"] for row in read["messages"]] == ["user"]
    await api.reading(0)
    resuming = asyncio.create_task(api.read("GET", stream, headers=mine))
    await api.reading(1)
    queued = await api.http.post(pending, json={"message": "and then?", "context": None}, headers=mine)
    assert queued.json() == {"buffer_length": 1, "max_buffer_length": 15, "turn_in_flight": True}
    waiting = (await api.http.get(pending, headers=mine)).json()
    assert waiting == {"messages": ["and then?"], "count": 1}
    stopped = (await api.http.post(f"/api/chat/sessions/{id}/cancel", headers=mine)).json()
    assert stopped["cancelled"] is True
    resumed = (await resuming)[1]
    assert resumed.done
    assert resumed.chunks[0]["type"] == "start"
    assert resumed.chunks[-1]["messageMetadata"]["status"] == "cancelled"
    async with asyncio.timeout(LIMIT):
        while (await api.session(id, mine))["chat_status"] == "running":
            await asyncio.sleep(0.05)
    said = [row["content"] for row in (await api.session(id, mine))["messages"] if row["role"] == "user"]
    assert said == ["/stream 2000 20", "and then?"]


@pytest.mark.parametrize("format", ["rows", "ui"])
async def test_older_messages_are_read_page_by_page(api: RunningApi, format: str) -> None:
    mine = api.as_user()
    id = await create(api, mine)
    for n in range(3):
        await send(api, id, mine, f"message {n}")
    page = await api.session(id, mine, limit=2, format=format)
    pages = [page["messages"]]
    while page["has_more_messages"]:
        assert page["oldest_sequence"] == page["older"]
        page = await api.session(id, mine, limit=2, format=format, before_sequence=page["oldest_sequence"])
        pages.insert(0, page["messages"])
    assert len(pages) == 3  # no empty page at the end
    assert "older" not in page
    whole = await api.session(id, mine, format=format)
    assert [one for page in pages for one in page] == whole["messages"]
    empty = await api.session(id, mine, before_sequence=page["oldest_sequence"])
    assert (empty["messages"], empty["has_more_messages"], empty["oldest_sequence"]) == ([], False, None)
    both = await api.http.get(f"/api/chat/sessions/{id}", params={"before": 2, "before_sequence": 2}, headers=mine)
    assert (both.status_code, both.json()["code"]) == (422, "validation_error")


async def test_a_chat_is_renamed_and_deleted(api: RunningApi) -> None:
    mine = api.as_user()
    id = await create(api, mine)
    path = f"/api/chat/sessions/{id}"
    renamed = await api.http.patch(f"{path}/title", json={"title": "  New  title "}, headers=mine)
    assert (renamed.status_code, renamed.json()) == (200, {"status": "ok"})
    assert (await api.session(id, mine))["title"] == "New title"
    assert (await api.http.patch(f"{path}/title", json={"title": " "}, headers=mine)).status_code == 422
    pinned = await api.http.patch(f"{path}/pinned", json={"is_pinned": True}, headers=mine)
    assert (pinned.status_code, (await api.session(id, mine))["is_pinned"]) == (200, True)
    assert (await api.http.delete(path, headers=mine)).status_code == 204
    gone: list[tuple[str, str, Any]] = [
        ("PATCH", "/title", {"title": "x"}),
        ("DELETE", "/stream", None),
        ("GET", "/messages/pending", None),
        ("POST", "/messages/pending", {"message": "x"}),
    ]
    for method, sub, body in gone:
        answer = await api.http.request(method, path + sub, json=body, headers=mine)
        assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


async def test_a_retried_message_is_answered_once(api: RunningApi) -> None:
    mine = api.as_user()
    id = await create(api, mine)
    by_body = [await send(api, id, mine, "/stream 2", idempotency_key="k1") for _ in range(2)]
    by_id = [await send(api, id, mine, "/stream 2", message_id="k2", mode="fast", model="advanced") for _ in range(2)]
    for first, second in (by_body, by_id):
        assert first.chunks[0] == second.chunks[0]
    assert [row["message_id"] for row in (await api.session(id, mine))["messages"]][::2] == ["k1", "k2"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"file_ids": ["f1"]}, "file_not_found"),
        ({"mode": "slow"}, "validation_error"),
        ({"model": "gpt-99"}, "unknown_model"),
        ({"temperature": 1}, "unknown_field"),
        ({"force_planner_split": True}, "unknown_field"),
        ({"idempotency_key": "\n"}, "validation_error"),
    ],
)
async def test_fields_that_are_not_supported_are_refused(api: RunningApi, fields: dict[str, Any], code: str) -> None:
    mine = api.as_user()
    id = await create(api, mine)
    refused = await api.http.post(f"/api/chat/sessions/{id}/stream", json=message("x", **fields), headers=mine)
    assert (refused.status_code, refused.json()["code"]) == (404 if code == "file_not_found" else 422, code)
    fine = await send(api, id, mine, "/stream 1", file_ids=[], force_planner_split=None, temperature=None)
    assert fine.text == "0 "


@pytest.mark.parametrize("body", [{"dry_run": True}, {"expert_id": "e"}, {"llm_auth_provider": "codex"}])
async def test_a_chat_that_is_not_supported_is_refused(api: RunningApi, body: Any) -> None:
    refused = await api.http.post("/api/chat/sessions", content=orjson.dumps(body), headers={
        "content-type": "application/json", **api.as_user()
    })  # fmt: skip
    assert refused.status_code == 422
    assert refused.json()["code"] in ("validation_error", "unknown_field")

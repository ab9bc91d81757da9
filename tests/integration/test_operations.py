"""Tests of operations, from the call that starts one to the continuation that answers its outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.e2e.sse import PACE, words_for
from tests.fakes.outside_work import OutsideToolbox
from tests.integration.running_api import (
    LIMIT,
    OLD_SERVICE_KEY,
    SERVICE_KEY,
    RunningApi,
    new_id,
    post,
    running_api,
    send_raw,
)

WORDS = words_for(1.5)

KEY = {"x-api-key": SERVICE_KEY}
START = '/tool outside_work {"label": "a"}'


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, toolbox=OutsideToolbox) as resources:
        yield resources


async def begin(api: RunningApi, mine: dict[str, str], text: str = START) -> tuple[str, dict[str, Any]]:
    """Runs a turn that starts an operation. Returns the session's id and the output of the call."""
    session = await api.new_session(mine)
    client = await api.say(session, text, mine)
    outputs = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert outputs[0]["type"] == "operation_started"
    return session, outputs[0]


async def complete(api: RunningApi, operation: str, **body: Any) -> httpx.Response:
    body.setdefault("success", True)
    return await api.http.post(f"/api/chat/operations/{operation}/complete", json=body, headers=KEY)


def result_of(session: dict[str, Any]) -> dict[str, Any]:
    (row,) = [row for row in session["messages"] if row["role"] == "tool"]
    output: dict[str, Any] = row["parts"][0]["output"]
    return output


async def test_an_outcome_starts_a_continuation_of_the_conversation(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    seen = await api.session(session, mine)
    assert "active_stream" not in seen
    assert [(one["operation_id"], one["status"]) for one in seen["operations"]] == [
        (started["operation_id"], "running")
    ]
    assert result_of(seen)["type"] == "operation_pending"
    reading = asyncio.create_task(api.ended(started["task_id"], mine))
    answer = await complete(api, started["operation_id"], result={"made": "it"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "task_id": started["task_id"]})
    live = await reading
    kinds = [chunk["type"] for chunk in live.chunks]
    assert kinds[:4] == ["start", "start-step", "tool-input-available", "tool-output-available"]
    assert live.chunks[3]["output"]["outputs"] == {"made": "it"}
    assert live.text == "The work of outside_work has ended: The work is done."
    assert live.chunks[-1]["messageMetadata"]["status"] == "completed"
    late = await api.ended(started["task_id"], mine)
    assert late.text == live.text
    after = await api.session(session, mine)
    assert after["operations"] == []
    assert result_of(after)["type"] == "block_output"
    assert [row["content"] for row in after["messages"] if row["role"] == "assistant"][-1] == live.text
    shown = (await api.session(session, mine, format="ui"))["messages"]
    assert [one["role"] for one in shown] == ["user", "assistant", "assistant"]
    parts = [part["type"] for part in shown[-1]["parts"]]
    assert parts == ["step-start", "dynamic-tool", "step-start", "text"]
    assert shown[-1]["id"] == live.chunks[0]["messageId"]
    assert shown[1]["parts"][1]["output"] == shown[2]["parts"][1]["output"]


async def test_the_model_gets_the_error_of_a_failed_operation(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    answer = await complete(api, started["operation_id"], success=False, error="No more wood.")
    assert answer.status_code == 200
    continuation = await api.ended(started["task_id"], mine)
    assert continuation.text == "The work of outside_work has ended: No more wood."
    assert result_of(await api.session(session, mine)) == {
        "type": "error",
        "message": "No more wood.",
        "error": "operation_failed",
        "session_id": session,
    }


async def test_a_repeated_outcome_changes_nothing_and_a_different_one_is_refused(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    operation = started["operation_id"]
    first = await asyncio.gather(*(complete(api, operation, result={"n": 1, "m": [2]}) for _ in range(20)))
    assert {answer.status_code for answer in first} == {200}
    assert sum("replayed" not in answer.json() for answer in first) == 1
    await api.ended(started["task_id"], mine)
    again = await complete(api, operation, result={"m": [2], "n": 1})
    assert again.json() == {"status": "ok", "task_id": started["task_id"], "replayed": True}
    for other in ({"result": {"n": 2}}, {"success": False, "error": "no"}, {}):
        refused = await complete(api, operation, **other)
        assert (refused.status_code, refused.json()["code"]) == (409, "already_completed")
    assert result_of(await api.session(session, mine))["outputs"] == {"n": 1, "m": [2]}
    answers = [row for row in (await api.session(session, mine))["messages"] if row["role"] == "assistant"]
    assert len(answers) == 3, "the call, its comment, and one continuation"


async def test_a_success_without_a_result_is_completed(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    assert (await complete(api, started["operation_id"])).status_code == 200
    await api.ended(started["task_id"], mine)
    assert result_of(await api.session(session, mine))["outputs"] == {"status": "completed"}


async def test_messages_are_answered_during_an_operation_and_its_continuation_waits_for_them(
    api: RunningApi,
) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    assert (await api.say(session, "/stream 3", mine)).text == "0 1 2 "
    path = f"/api/chat/sessions/{session}/stream"
    busy = asyncio.create_task(api.read("POST", path, json={"message": f"/stream {WORDS} {PACE}"}, headers=mine))
    await api.active_stream(session, mine)
    assert (await complete(api, started["operation_id"], result="a text")).status_code == 200
    waiting = await api.session(session, mine)
    assert waiting["active_stream"]["task_id"] != started["task_id"]
    assert [one["status"] for one in waiting["operations"]] == ["queued"]
    assert waiting["queued"] == [], "no message of the user is waiting"
    _, answered = await busy
    assert answered.text == "".join(f"{n} " for n in range(WORDS))
    continuation = await api.ended(started["task_id"], mine)
    assert continuation.chunks[-1]["messageMetadata"]["status"] == "completed"
    assert [row["content"] for row in (await api.session(session, mine))["messages"]][-1] == continuation.text


@pytest.mark.parametrize("by", ["task", "session"])
async def test_a_cancelled_operation_takes_no_outcome(api: RunningApi, by: str) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    reading = asyncio.create_task(api.ended(started["task_id"], mine))
    if by == "task":
        answer = await api.http.post(f"/api/chat/tasks/{started['task_id']}/cancel", headers=mine)
        assert answer.json() == {"cancelled": True, "task_id": started["task_id"]}
        seen = await reading
        kinds = [chunk["type"] for chunk in seen.chunks]
        assert kinds == [
            "start",
            "start-step",
            "tool-input-available",
            "tool-output-error",
            "finish-step",
            "abort",
            "finish",
        ]
        late = await complete(api, started["operation_id"])
        assert (late.status_code, late.json()["code"]) == (410, "operation_gone")
        assert result_of(await api.session(session, mine))["error"] == "cancelled"
        again = await api.http.post(f"/api/chat/tasks/{started['task_id']}/cancel", headers=mine)
        assert again.json() == {"cancelled": False, "reason": "no_active_task"}
    else:
        assert (await api.http.delete(f"/api/chat/sessions/{session}", headers=mine)).status_code == 204
        late = await complete(api, started["operation_id"])
        assert (late.status_code, late.json()["code"]) == (404, "operation_not_found")
        reading.cancel()


async def test_an_operation_past_its_deadline_is_given_up_and_the_model_learns_it(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    async with api.resources.database.connection() as c:
        await c.execute("UPDATE tasks SET deadline_at = now() WHERE id = $1", started["task_id"])
    continuation = await api.ended(started["task_id"], mine)
    assert (
        continuation.text
        == "The work of outside_work has ended: The work was not finished in time, so it was given up."
    )
    late = await complete(api, started["operation_id"])
    assert (late.status_code, late.json()["code"]) == (410, "operation_gone")
    assert result_of(await api.session(session, mine))["error"] == "operation_timeout"


async def test_progress_is_shown_to_readers_and_in_the_session(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    path = f"/api/chat/operations/{started['operation_id']}/progress"
    for percent in (10, 42.5):
        answer = await api.http.post(path, json={"percent": percent, "message": "sawing"}, headers=KEY)
        assert answer.status_code == 202
    (operation,) = (await api.session(session, mine))["operations"]
    assert operation["progress"] == {"percent": 42.5, "message": "sawing"}
    assert (await complete(api, started["operation_id"])).status_code == 200
    seen = await api.ended(started["task_id"], mine)
    reports = [chunk for chunk in seen.chunks if chunk["type"] == "data-progress"]
    assert [one["data"] for one in reports] == [
        {"percent": 10, "message": "sawing"},
        {"percent": 42.5, "message": "sawing"},
    ]
    assert {one["id"] for one in reports} == {operation["tool_call_id"]}
    over = await api.http.post(path, json={"percent": 99}, headers=KEY)
    assert (over.status_code, over.json()["code"]) == (410, "operation_gone")
    shown = (await api.session(session, mine, format="ui"))["messages"][-1]["parts"]
    assert [part["type"] for part in shown] == ["step-start", "dynamic-tool", "data-progress", "step-start", "text"]


async def test_an_outcome_with_a_wrong_key_id_or_body_is_refused(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    path = f"/api/chat/operations/{started['operation_id']}/complete"
    body = {"success": True, "result": {"x": 1}}
    for keys in (
        [],
        [""],
        ["x y"],
        ["wrong-key-of-the-tests-1"],
        ["кл".encode()],
        [SERVICE_KEY, SERVICE_KEY],
        ["k" * 5_000],
    ):
        headers = [(b"x-api-key", k if isinstance(k, bytes) else k.encode()) for k in keys]
        answer = await api.http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key"), keys
    foreign = await api.http.post(path, json=body, headers=mine)
    assert foreign.status_code == 401, "the token of a user is not a service key"
    for id in (new_id(), "x", "..%2f", started["task_id"], "00000000-0000-0000-0000-000000000000"):
        answer = await api.http.post(f"/api/chat/operations/{id}/complete", json=body, headers=KEY)
        assert answer.status_code == 404, id
    for wrong in (
        {},
        {"success": "true"},
        {"success": 1},
        {"success": True, "error": "x"},
        {"success": True, "result": [1]},
        {"success": True, "other": 1},
        {"success": False, "error": 3},
        {"success": True, "operation_id": "00000000-0000-4000-8000-000000000000"},
    ):
        answer = await api.http.post(path, json=wrong, headers=KEY)
        assert answer.status_code == 422, wrong
    large = json.dumps({"success": True, "result": "x" * (5 << 20)}).encode()
    answer_to_large = await send_raw(api.port, post(path, large, f"x-api-key: {SERVICE_KEY}")[:2_000])
    assert (answer_to_large.status, answer_to_large.code) == (413, "payload_too_large")
    nul = await api.http.post(path, json={"success": True, "result": "a\0b"}, headers=KEY)
    assert (nul.status_code, nul.json()["code"]) == (422, "invalid_unicode")
    assert result_of(await api.session(session, mine))["type"] == "operation_pending", (
        "none of the refused bodies was applied"
    )
    old = await api.http.post(path, json=body, headers={"x-api-key": OLD_SERVICE_KEY})
    assert old.status_code == 200
    assert "old_key_used_total 1.0" in (await api.http.get("/metrics")).text


async def test_a_result_is_stored_as_plain_data_whatever_it_contains(api: RunningApi) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    result = {"html": "<script>alert(1)</script>", "ansi": "\x1b[31m", "lines": "a\r\nb\u2028c", "__proto__": {"x": 1}}
    assert (await complete(api, started["operation_id"], result=result)).status_code == 200
    seen = await api.ended(started["task_id"], mine)
    assert seen.chunks[-1]["messageMetadata"]["status"] == "completed"
    outputs = result_of(await api.session(session, mine))["outputs"]
    assert outputs == {name: value for name, value in result.items() if name != "__proto__"}
    assert json.dumps(outputs)


async def test_two_operations_of_one_step_end_independently(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    client = await api.say(session, f"{START}\n{START}", mine)
    started = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert len({one["operation_id"] for one in started}) == 2
    good, bad = started
    answers = await asyncio.gather(
        complete(api, good["operation_id"], result={"n": 1}),
        complete(api, bad["operation_id"], success=False, error="No wood."),
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (await api.ended(good["task_id"], mine)).text.endswith("The work is done.")
    assert (await api.ended(bad["task_id"], mine)).text.endswith("No wood.")
    rows = [row for row in (await api.session(session, mine))["messages"] if row["role"] == "tool"]
    assert {row["parts"][0]["output"]["type"] for row in rows} == {"block_output", "error"}


async def test_another_user_cannot_find_an_operation(api: RunningApi) -> None:
    mine, other = api.as_user(), api.as_user()
    _, started = await begin(api, mine)
    for method, path in (("GET", ""), ("GET", "/stream"), ("POST", "/cancel")):
        answer = await api.http.request(method, f"/api/chat/tasks/{started['task_id']}{path}", headers=other)
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
    other_session = await api.new_session(other)
    asked = {"operation_id": started["operation_id"]}
    client = await api.say(other_session, f"/tool check_operation_status {json.dumps(asked)}", other)
    assert "There is no such operation" in client.text
    assert (await complete(api, started["operation_id"])).status_code == 200
    async with asyncio.timeout(LIMIT):
        await api.ended(started["task_id"], mine)

"""The AI SDK's own routes: send, edit, regenerate, resume; and the conversation as UI messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.chat.models import Caller, TurnRequest
from backend.chat.store import tasks
from backend.ids import SessionId, new_task_id
from tests.integration.running_api import RunningApi, new_id, running_api, send_raw
from tests.sse_client import StrictClient

Headers = dict[str, str]


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


def user_message(id: str, text: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}], "metadata": {"new": "key"}}


async def chat(
    api: RunningApi, session: str, *messages: Any, key: str | None = None, headers: Headers | None = None, **body: Any
) -> StrictClient:
    headers = (headers or {}) | ({"idempotency-key": key} if key is not None else {})
    answer, client = await api.read(
        "POST", "/api/chat", json={"id": session, "messages": messages, "tools": [], **body}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    assert client.done
    return client


async def ui(api: RunningApi, session: str, **params: Any) -> list[Any]:
    answer = await api.http.get(f"/api/chat/sessions/{session}", params={"format": "ui", **params})
    messages: list[Any] = answer.json()["messages"]
    return messages


async def test_a_chat_begins_with_its_first_message(api: RunningApi) -> None:
    session = new_id()
    client = await chat(api, session, user_message("m1", "/stream 3"), trigger="submit-message")
    again = await chat(api, session, user_message("m1", "/stream 3"))
    assert client.text == again.text == "0 1 2 "
    assert client.chunks[0]["messageId"] == again.chunks[0]["messageId"]
    assert await ui(api, session) == [
        {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "/stream 3"}], "metadata": {"new": "key"}},
        {
            "id": client.chunks[0]["messageId"],
            "role": "assistant",
            "parts": [{"type": "step-start"}, {"type": "text", "text": "0 1 2 ", "state": "done"}],
            "metadata": client.chunks[-1]["messageMetadata"],
        },
    ]
    assert (await api.http.get(f"/api/chat/{session}/stream")).status_code == 204


async def test_an_edit_takes_the_place_of_what_came_after(api: RunningApi) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 1"))
    await chat(api, session, user_message("m2", "/stream 2"))
    edit = {"trigger": "submit-message", "messageId": "m1"}
    edited = await chat(api, session, user_message("m1", "/stream 4"), **edit)
    retried = await chat(api, session, user_message("m1", "/stream 4"), **edit)
    assert edited.chunks[0]["messageId"] == retried.chunks[0]["messageId"]
    assert edited.text == "0 1 2 3 "
    shown = await ui(api, session)
    assert [one["parts"][-1]["text"] for one in shown] == ["/stream 4", "0 1 2 3 "]
    twice = await chat(api, session, user_message("m1", "/stream 5"), **edit)
    assert twice.text == "0 1 2 3 4 "
    assert [one["id"] for one in await ui(api, session)] == ["m1", twice.chunks[0]["messageId"]]


async def test_two_copies_of_an_edit_are_one(api: RunningApi) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 1"))
    copies = await asyncio.gather(
        *(chat(api, session, user_message("m1", "/stream 2"), messageId="m1") for _ in range(4))
    )
    assert len({copy.chunks[0]["messageId"] for copy in copies}) == 1
    assert len(await ui(api, session)) == 2


async def test_an_edit_makes_no_conversation(api: RunningApi) -> None:
    """It may have been deleted meanwhile, by another tab."""
    session = new_id()
    body = {"id": session, "messages": [user_message("m1", "/stream 2")], "messageId": "m1"}
    refused = await api.http.post("/api/chat", json=body)
    assert (refused.status_code, refused.json()["code"]) == (404, "session_not_found")
    assert (await api.http.get(f"/api/chat/sessions/{session}")).status_code == 404


@pytest.mark.parametrize("named", ["nothing", "answer", "question", "unknown"])
async def test_another_answer_takes_the_place_of_the_first_one(api: RunningApi, named: str) -> None:
    session = new_id()
    first = await chat(api, session, user_message("m1", "/stream 2"))
    names = {"answer": first.chunks[0]["messageId"], "question": "m1", "unknown": "who?"}
    body = {"messageId": names[named]} if named in names else {}
    second = await chat(api, session, user_message("m1", "/stream 2"), trigger="regenerate-message", key="r1", **body)
    again = await chat(api, session, user_message("m1", "/stream 2"), trigger="regenerate-message", key="r1", **body)
    assert second.chunks[0]["messageId"] == again.chunks[0]["messageId"] != first.chunks[0]["messageId"]
    shown = await ui(api, session)
    assert [one["id"] for one in shown] == ["m1", second.chunks[0]["messageId"]]
    third = await chat(api, session, user_message("m1", "/stream 2"), trigger="regenerate-message")
    assert [one["id"] for one in await ui(api, session)] == ["m1", third.chunks[0]["messageId"]]


async def test_an_earlier_answer_can_be_regenerated(api: RunningApi) -> None:
    session = new_id()
    first = await chat(api, session, user_message("m1", "/stream 1"))
    await chat(api, session, user_message("m2", "/stream 2"))
    body = {"trigger": "regenerate-message", "messageId": first.chunks[0]["messageId"]}
    anew = await chat(api, session, user_message("m1", "/stream 1"), **body)
    assert anew.text == "0 "
    assert [one["id"] for one in await ui(api, session)] == ["m1", anew.chunks[0]["messageId"]]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"messages": []}, 422, "empty_message"),
        ({"messages": [{"role": "assistant", "parts": []}]}, 422, "empty_message"),
        ({"messages": [user_message("m", "  ")]}, 422, "empty_message"),
        ({"messages": [{"role": "user", "parts": []}]}, 422, "empty_message"),
        ({"messages": [user_message("m", "x" * 64_001)]}, 422, "message_too_long"),
        ({"messages": [{"role": "user", "parts": [{"type": "file", "url": "data:,"}]}]}, 422, "validation_error"),
        ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, 422, "unsupported_part"),
        ({"messages": [{"role": "user", "parts": ["x"]}]}, 422, "validation_error"),
        ({"messages": [user_message("m\u00f6", "x")]}, 422, "validation_error"),
        ({"messages": [user_message("m", "x")], "trigger": "else"}, 422, "validation_error"),
        ({"messages": [user_message("m", "x")], "id": "short"}, 422, "validation_error"),
        ({"trigger": "regenerate-message"}, 404, "session_not_found"),
    ],
)
async def test_an_invalid_chat_request_is_refused(
    api: RunningApi, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await api.http.post("/api/chat", json={"id": new_id(), **body})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_regeneration_without_a_question_is_refused(api: RunningApi) -> None:
    session = await api.new_session()
    answer = await api.http.post("/api/chat", json={"id": session, "trigger": "regenerate-message"})
    assert (answer.status_code, answer.json()["code"]) == (404, "message_not_found")


async def test_tools_and_failures_look_after_a_reload_as_they_did_in_the_stream(api: RunningApi) -> None:
    session = new_id()
    words = '/tool add_understanding {"name":"Ada"}\n/tool no_such_tool {}'
    client = await chat(api, session, user_message("m1", words))
    (_, answer) = await ui(api, session)
    assert [part["type"] for part in answer["parts"]] == [
        "step-start", "dynamic-tool", "dynamic-tool", "step-start", "text",
    ]  # fmt: skip
    streamed = {part["id"]: part for part in client.parts if part["type"] == "tool"}
    for part in answer["parts"][1:3]:
        assert part["state"] == "output-available"
        assert part["providerExecuted"] is True
        assert part["input"] == streamed[part["toolCallId"]]["input"]
        assert part["output"] == streamed[part["toolCallId"]]["output"]
    assert answer["parts"][-1]["text"] == client.text
    failed = await chat(api, session, user_message("m2", "/fail"))
    last = (await ui(api, session))[-1]
    assert last["id"] == failed.chunks[0]["messageId"]
    assert last["metadata"]["status"] == "failed"
    assert last["parts"][-1] == {
        "type": "data-error",
        "data": next(c for c in failed.chunks if c["type"] == "data-error")["data"],
    }


async def test_a_page_of_ui_messages_holds_whole_messages(api: RunningApi) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", '/tool add_understanding {"name":"Ada"}'))
    whole = (await ui(api, session))[-1]
    for limit in (1, 2, 3):
        assert (await ui(api, session, limit=limit))[-1] == whole


def ids_of(*clients: StrictClient) -> list[str]:
    return [client.chunks[0]["messageId"] for client in clients]


async def test_the_history_shows_the_newest_answer_to_each_question_even_if_it_failed(api: RunningApi) -> None:
    """`/fail` fails before anything is committed: its tasks leave no rows."""
    session = new_id()
    question = user_message("m1", "/fail")
    await chat(api, session, question)
    again = await chat(api, session, question, trigger="regenerate-message")
    (_, failure) = await ui(api, session)
    assert [failure["id"]] == ids_of(again)
    assert failure["parts"][0]["type"] == "data-error"
    other = await chat(api, session, user_message("m2", "/fail"))
    assert [one["id"] for one in await ui(api, session)] == ["m1", *ids_of(again), "m2", *ids_of(other)]
    third = await chat(api, session, user_message("m2", "/fail"), trigger="regenerate-message")
    assert [one["id"] for one in await ui(api, session)] == ["m1", *ids_of(again), "m2", *ids_of(third)]
    edited = await chat(api, session, user_message("m2", "/stream 2"), messageId="m2")
    assert [one["id"] for one in await ui(api, session)] == ["m1", *ids_of(again), "m2", *ids_of(edited)]
    first = await chat(api, session, question, trigger="regenerate-message", messageId="m1")
    assert [one["id"] for one in await ui(api, session)] == ["m1", *ids_of(first)]


async def test_while_a_question_is_answered_again_its_first_failure_is_not_shown(api: RunningApi) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/fail"))
    async with api.resources.database.connection() as c:  # nobody publishes it
        await tasks.insert_task(
            c, task_id=new_task_id(), session_id=SessionId(session), caller=Caller(None, ""), request=TurnRequest(None),
            message_key=None, active=True,
        )  # fmt: skip
    assert [one["id"] for one in await ui(api, session)] == ["m1"]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("input", [nested(40), 10**20, "x" * 1_500_000], ids=["deep", "long number", "large"])
async def test_a_conversation_goes_on_whatever_earlier_messages_contain(api: RunningApi, input: Any) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 1"))
    call = {"type": "dynamic-tool", "toolCallId": "c", "toolName": "t", "state": "input-available", "input": input}
    earlier = {"id": "msg_x", "role": "assistant", "parts": [{"type": "step-start"}, call]}
    client = await chat(api, session, user_message("m1", "/stream 1"), earlier, user_message("m2", "/stream 2"))
    assert client.text == "0 1 "


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        ({"type": "text", "text": "x", "more": nested(40)}, 422, "too_deep"),
        ({"type": "text", "text": "x", "more": 10**20}, 422, "invalid_number"),
        ({"type": "text", "text": "x" * 1_500_000}, 413, "payload_too_large"),
    ],
    ids=["deep", "long number", "large"],
)
async def test_the_parts_of_a_users_message_are_checked_strictly(
    api: RunningApi, part: Any, status: int, code: str
) -> None:
    said = {"id": "m1", "role": "user", "parts": [part]}
    answer = await api.http.post("/api/chat", json={"id": new_id(), "messages": [user_message("m0", "x"), said]})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_conversation_may_be_larger_than_other_bodies_and_has_a_limit_too(api: RunningApi) -> None:
    head = (
        f"POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {2**24 + 1}\r\n\r\n"
    )
    answer = await send_raw(api.port, head.encode())
    assert (answer.status, answer.code) == (413, "payload_too_large")

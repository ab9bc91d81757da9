"""The AI SDK's other ways to send: the last message alone, another answer to a changed question, data and metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api
from tests.integration.test_api_chat import chat, ui, user_message

AGAIN = {"trigger": "regenerate-message"}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


def texts(messages: list[Any]) -> list[str]:
    return [part["text"] for message in messages for part in message["parts"] if part["type"] == "text"]


async def chat_alone(api: RunningApi, session: str, message: Any, **body: Any) -> str:
    answer, client = await api.read("POST", "/api/chat", json={"id": session, "message": message, **body})
    assert answer.status_code == 200, answer.text
    return client.text


async def test_the_last_message_alone_is_a_message(api: RunningApi) -> None:
    """`prepareSendMessagesRequest: ({ id, messages }) => ({ body: { id, message: messages.at(-1) } })`"""
    session = new_id()
    first = await chat_alone(api, session, user_message("m1", "/stream 2"))
    assert first == "0 1 "
    assert await chat_alone(api, session, user_message("m2", "/stream 3")) == "0 1 2 "
    assert texts(await ui(api, session)) == ["/stream 2", "0 1 ", "/stream 3", "0 1 2 "]
    assert await chat_alone(api, session, user_message("m2", "/stream 1"), messageId="m2") == "0 "
    assert await chat_alone(api, session, user_message("m2", "/stream 4"), **AGAIN) == "0 1 2 3 "
    assert texts(await ui(api, session)) == ["/stream 2", "0 1 ", "/stream 4", "0 1 2 3 "]


async def test_a_known_message_with_another_text_and_no_trigger_is_an_edit(api: RunningApi) -> None:
    """The same recipe, after `setMessages` with a changed text and `regenerate()`."""
    session, other = new_id(), api.as_user()
    await chat_alone(api, session, user_message("m1", "/stream 2"))
    for _ in range(2):  # the second time it is sent again
        assert await chat_alone(api, session, user_message("m1", "/stream 3")) == "0 1 2 "
    assert texts(await ui(api, session)) == ["/stream 3", "0 1 2 "]
    mine = await api.new_session(other)
    body = {"id": mine, "message": user_message("m1", "/stream 3")}
    refused = await api.http.post("/api/chat", json=body, headers=api.as_user())
    assert (refused.status_code, refused.json()["code"]) == (404, "session_not_found")


@pytest.mark.parametrize(
    "message",
    [None, {"role": "assistant", "parts": [{"type": "text", "text": "x"}]}, {"role": "user", "parts": []}],
    ids=["none", "not the user's", "empty"],
)
async def test_a_message_alone_must_be_the_users(api: RunningApi, message: Any) -> None:
    refused = await api.http.post("/api/chat", json={"id": new_id(), "message": message})
    assert (refused.status_code, refused.json()["code"]) == (422, "empty_message")


@pytest.mark.parametrize("named", ["nothing", "the question", "its answer", "something unknown"])
async def test_another_answer_to_a_changed_question_is_an_edit(api: RunningApi, named: str) -> None:
    """A page changes the list with `setMessages` and calls `regenerate()`, as Vercel's chatbot template does."""
    session = new_id()
    first = await chat(api, session, user_message("m1", "/stream 2"))
    await chat(api, session, user_message("m2", "/stream 3"))
    ids = {"the question": "m1", "its answer": first.chunks[0]["messageId"], "something unknown": "?"}
    body = {"messageId": ids[named]} if named in ids else {}
    changed = user_message("m1", "/stream 4")
    copies = await asyncio.gather(*(chat(api, session, changed, key="k", **AGAIN, **body) for _ in range(2)))
    assert {copy.text for copy in copies} == {"0 1 2 3 "}
    assert len({copy.chunks[0]["messageId"] for copy in copies}) == 1
    assert next(one["id"] for one in await ui(api, session)) == "m1"
    assert texts(await ui(api, session)) == ["/stream 4", "0 1 2 3 "]
    same = await chat(api, session, changed, **AGAIN)
    assert same.chunks[0]["messageId"] != copies[0].chunks[0]["messageId"]
    assert texts(await ui(api, session)) == ["/stream 4", "0 1 2 3 "]


async def test_a_question_that_still_waits_may_change_too(api: RunningApi) -> None:
    session = new_id()
    running = asyncio.create_task(chat(api, session, user_message("m1", "/stream 1000 20")))
    async with asyncio.timeout(LIMIT):
        while (await api.http.head(f"/api/chat/{session}/stream")).status_code == 204:
            await asyncio.sleep(0.02)
    waiting = asyncio.create_task(chat(api, session, user_message("m2", "/stream 2")))
    async with asyncio.timeout(LIMIT):
        while not (await api.session(session))["queued"]:
            await asyncio.sleep(0.02)
    changed = asyncio.create_task(chat(api, session, user_message("m2", "/stream 3"), **AGAIN))
    async with asyncio.timeout(LIMIT):
        while (await api.session(session))["queued"][0]["message"] != "/stream 3":
            await asyncio.sleep(0.02)
    await api.http.post(f"/api/chat/sessions/{session}/cancel")
    await running
    assert [(await waiting).text, (await changed).text] == ["0 1 2 ", "0 1 2 "]


async def test_a_question_that_the_server_does_not_know_is_not_answered_as_another_one(api: RunningApi) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 2"))
    unknown = await chat(api, session, user_message("m9", "/stream 3"), **AGAIN)
    assert unknown.text == "0 1 2 "
    assert texts(await ui(api, session)) == ["/stream 2", "0 1 ", "/stream 3", "0 1 2 "]
    known_text = await chat(api, session, user_message("m8", "/stream 3"), **AGAIN)  # only its id is another one
    assert [one["id"] for one in await ui(api, session)][2:] == ["m9", known_text.chunks[0]["messageId"]]


@pytest.mark.parametrize("parts", [[], [{"type": "text", "text": ""}]])
async def test_a_page_that_sends_no_text_gets_another_answer(api: RunningApi, parts: Any) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 2"))
    again = await chat(api, session, {"id": "m1", "role": "user", "parts": parts}, **AGAIN)
    assert again.text == "0 1 "
    assert texts(await ui(api, session)) == ["/stream 2", "0 1 "]


EMPTY_FILE = {"type": "file", "url": "data:,", "mediaType": "image/png"}
FOREIGN_FILE = EMPTY_FILE | {"url": "https://example.com/a.png"}


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([{"type": "text", "text": "x"}, EMPTY_FILE], "validation_error"),
        ([{"type": "text", "text": "x"}, FOREIGN_FILE], "foreign_file_url"),
        ([{"type": "text", "text": "x" * 64_001}], "message_too_long"),
    ],
)
async def test_an_invalid_change_of_a_question_is_refused(api: RunningApi, parts: Any, code: str) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 2"))
    body = {"id": session, "messages": [{"id": "m1", "role": "user", "parts": parts}], **AGAIN}
    refused = await api.http.post("/api/chat", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert texts(await ui(api, session)) == ["/stream 2", "0 1 "]


async def test_data_and_metadata_of_a_users_message_are_kept(api: RunningApi) -> None:
    session = new_id()
    data = [
        {"type": "data-location", "id": "d1", "data": {"city": "Paris"}},
        {"type": "data-mark", "data": None},
    ]
    sent = {"id": "m1", "role": "user", "parts": [data[0], {"type": "text", "text": "/stream 2"}, data[1]]}
    answer = await chat(api, session, sent | {"metadata": {"from": ["keyboard", 1]}})
    assert answer.text == "0 1 "
    (shown, _) = await ui(api, session)
    assert shown["metadata"] == {"from": ["keyboard", 1]}
    assert shown["parts"] == [{"type": "text", "text": "/stream 2"}, *data]
    row = (await api.session(session))["messages"][0]
    assert (row["metadata"], row["content"]) == ({"from": ["keyboard", 1]}, "/stream 2")
    assert row["parts"] == [{"type": "text", "text": "/stream 2"}, *data]
    edit = user_message("m1", "/stream 1") | {"metadata": {"edited": True}}
    await chat(api, session, edit, messageId="m1")
    (shown, _) = await ui(api, session)
    assert (shown["metadata"], len(shown["parts"])) == ({"edited": True}, 1)


async def test_metadata_of_a_posted_message_is_kept(api: RunningApi) -> None:
    session = await api.new_session()
    await api.say(session, "/stream 1", metadata={"a": 1})
    assert (await ui(api, session))[0]["metadata"] == {"a": 1}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"metadata": {"a": "x" * 64_001}}, "message_too_long"),
        ({"parts": [{"type": "text", "text": "x"}, {"type": "data-a", "data": ["x" * 64_001]}]}, "message_too_long"),
        ({"parts": [{"type": "text", "text": "x"}, {"type": "data-a"}]}, "unsupported_part"),
        ({"parts": [{"type": "text", "text": "x"}, {"type": "data-", "data": 1}]}, "unsupported_part"),
        ({"parts": [{"type": "data-a", "data": 1}]}, "empty_message"),
    ],
)
async def test_data_and_metadata_have_limits(api: RunningApi, message: Any, code: str) -> None:
    body = {"id": new_id(), "messages": [user_message("m1", "x") | message]}
    refused = await api.http.post("/api/chat", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, code)

"""Tests of edits and regenerations while other turns of the conversation run, wait or were revised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api
from tests.integration.test_api_chat import chat, ui, user_message
from tests.sse_client import StrictClient

RUNNING = "/stream 2000 20"


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


class BusySession:
    """A session in which messages are sent while others run and wait."""

    def __init__(self, api: RunningApi) -> None:
        self.api = api
        self.id = new_id()

    async def send(self, id: str, text: str, *, waits: int, **body: Any) -> asyncio.Task[StrictClient]:
        """Sends a message, and waits until `waits` messages wait in the session. One of them is this one, unless it
        runs at once or has no text of its own."""
        shown = text if waits and "trigger" not in body else None
        answer = asyncio.create_task(chat(self.api, self.id, user_message(id, text), **body))
        async with asyncio.timeout(LIMIT):
            while not await self._has(waits, shown):
                assert not answer.done(), answer.result()
                await asyncio.sleep(0.02)
        return answer

    async def _has(self, waiting: int, text: str | None) -> bool:
        found = await self.api.http.get(f"/api/chat/sessions/{self.id}")
        if found.status_code != 200 or "active_stream" not in found.json():
            return False
        texts = [one["message"] for one in found.json()["queued"]]
        return len(texts) == waiting and (text is None or text in texts)

    async def cancel(self) -> None:
        """Cancels the running turn."""
        answer = await self.api.http.post(f"/api/chat/sessions/{self.id}/cancel")
        assert answer.json()["cancelled"] is True

    async def branches(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.api.session(self.id))["branches"]
        return found

    async def texts(self) -> list[tuple[str, str]]:
        """Returns the role and the last text of each message."""
        return [(one["role"], one["parts"][-1].get("text", "")) for one in await ui(self.api, self.id)]


async def test_an_answer_is_regenerated_after_an_edit_that_waited(api: RunningApi) -> None:
    session = BusySession(api)
    await chat(api, session.id, user_message("m1", "/stream 1"))
    running = await session.send("m2", RUNNING, waits=0)
    edit = await session.send("m1", "/stream 3", waits=1, messageId="m1")
    regenerated = await session.send("m1", "/stream 3", waits=2, trigger="regenerate-message")
    await session.cancel()
    await running
    assert ((await edit).text, (await regenerated).text) == ("0 1 2 ", "0 1 2 ")
    assert await session.texts() == [("user", "/stream 3"), ("assistant", "0 1 2 ")]
    assert [one["id"] for one in await ui(api, session.id)] == ["m1", (await regenerated).chunks[0]["messageId"]]


async def test_a_waiting_message_is_edited_in_its_place(api: RunningApi) -> None:
    session = BusySession(api)
    running = await session.send("m1", RUNNING, waits=0)
    first = await session.send("m2", "/stream 1", waits=1)
    edited = await session.send("m2", "/stream 2", waits=1, messageId="m2")
    again = await session.send("m2", "/stream 2", waits=1, messageId="m2")
    last = await session.send("m3", "/stream 4", waits=2)
    await session.cancel()
    await running
    assert [(await one).text for one in (first, edited, again, last)] == ["0 1 ", "0 1 ", "0 1 ", "0 1 2 3 "]
    assert (await first).chunks[0]["messageId"] == (await edited).chunks[0]["messageId"]
    questions = [text for role, text in await session.texts() if role == "user"]
    assert questions == [RUNNING, "/stream 2", "/stream 4"]


async def test_a_waiting_edit_can_be_edited(api: RunningApi) -> None:
    session = BusySession(api)
    await chat(api, session.id, user_message("m1", "/stream 1"))
    running = await session.send("m2", RUNNING, waits=0)
    edits = [await session.send("m1", f"/stream {n}", waits=1, messageId="m1") for n in (2, 3)]
    await session.cancel()
    await running
    assert [(await edit).text for edit in edits] == ["0 1 2 ", "0 1 2 "]
    assert await session.texts() == [("user", "/stream 3"), ("assistant", "0 1 2 ")]


async def test_a_message_cancelled_while_waiting_can_be_sent_again_with_another_text(api: RunningApi) -> None:
    session = BusySession(api)
    running = await session.send("m1", RUNNING, waits=0)
    cancelled = await session.send("m2", "/stream 1", waits=1)
    [waiting] = (await api.session(session.id))["queued"]
    await api.http.post(f"/api/chat/tasks/{waiting['task_id']}/cancel")
    resent = await session.send("m2", "/stream 2", waits=1, messageId="m2")
    await session.cancel()
    await running
    assert ((await cancelled).text, (await resent).text) == ("", "0 1 ")
    questions = [text for role, text in await session.texts() if role == "user"]
    assert questions == [RUNNING, "/stream 2"]


async def test_a_waiting_message_can_be_regenerated(api: RunningApi) -> None:
    session = BusySession(api)
    running = await session.send("m1", RUNNING, waits=0)
    first = await session.send("m2", "/stream 2", waits=1)
    second = await session.send("m2", "/stream 2", waits=2, trigger="regenerate-message", messageId="m2")
    await session.cancel()
    await running
    assert ((await first).text, (await second).text) == ("0 1 ", "0 1 ")
    shown = [one["id"] for one in await ui(api, session.id)]
    assert shown[0] == "m1"
    assert shown[-2:] == ["m2", (await second).chunks[0]["messageId"]]


async def test_another_answer_is_one_to_the_version_that_was_shown_when_it_was_asked_for(api: RunningApi) -> None:
    """Another tab edits the message while the request waits."""
    session = BusySession(api)
    await chat(api, session.id, user_message("m1", "/stream 1"))
    running = await session.send("m2", RUNNING, waits=0)
    regenerated = await session.send("m1", "/stream 1", waits=1, trigger="regenerate-message")
    by_id = await session.send("m1", "", waits=2, trigger="regenerate-message")
    edit = await session.send("m1", "/stream 3", waits=3, messageId="m1")
    stale = await session.send("m1", "/stream 1", waits=4, trigger="regenerate-message")
    await session.cancel()
    await running
    answers = [(await one).text for one in (regenerated, by_id, edit, stale)]
    assert answers == ["0 ", "0 ", "0 1 2 ", "0 "]
    assert await session.texts() == [("user", "/stream 1"), ("assistant", "0 ")]
    (shown,) = [one for one in await session.branches() if one["id"] == "m1"]
    assert (shown["count"], shown["index"]) == (2, 1), "the edit is one switch away"


@pytest.mark.parametrize("named", [True, False])
async def test_a_page_that_does_not_know_an_edit_gets_another_answer_to_the_question_it_shows(
    api: RunningApi, named: bool
) -> None:
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 1"))
    old = await chat(api, session, user_message("m2", "/stream 2"))
    await chat(api, session, user_message("m2", "/stream 3"), messageId="m2")
    body = {"messageId": old.chunks[0]["messageId"]} if named else {}
    again = {"trigger": "regenerate-message", **body}
    regenerated = await chat(api, session, user_message("m2", "/stream 2"), **again)
    assert regenerated.text == "0 1 "
    shown = await ui(api, session)
    assert [one["parts"][-1]["text"] for one in shown] == ["/stream 1", "0 ", "/stream 2", "0 1 "]
    branches = {one["id"]: (one["index"], one["count"]) for one in (await api.session(session))["branches"]}
    assert branches == {"m2": (1, 2), shown[-1]["id"]: (2, 2)}


async def test_a_message_sent_without_an_id_is_edited_by_the_id_that_the_server_gave_it(api: RunningApi) -> None:
    session = await api.new_session()
    await api.say(session, "/stream 1")
    [question, _] = await ui(api, session)
    edited = await chat(api, session, user_message(question["id"], "/stream 2"), messageId=question["id"])
    assert [one["id"] for one in await ui(api, session)] == [question["id"], edited.chunks[0]["messageId"]]

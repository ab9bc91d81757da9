"""Edits and regenerations of a conversation in which something else runs, waits or was revised meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.api_house import LIMIT, ApiHouse, api_house, new_id
from tests.integration.test_api_chat import chat, ui, user_message
from tests.sse_client import StrictClient

RUNS = "/stream 2000 20"


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    async with api_house(postgres_dsn, redis_dsn) as house:
        yield house


class Talk:
    """A session in which messages are sent while others run and wait."""

    def __init__(self, api: ApiHouse) -> None:
        self.api = api
        self.id = new_id()

    async def sent(self, id: str, text: str, *, waits: int, **body: Any) -> asyncio.Task[StrictClient]:
        """Sends it and waits until so many messages wait."""
        answer = asyncio.create_task(chat(self.api, self.id, user_message(id, text), **body))
        async with asyncio.timeout(LIMIT):
            while not await self._has(waits):
                assert not answer.done(), answer.result()
                await asyncio.sleep(0.02)
        return answer

    async def _has(self, waiting: int) -> bool:
        found = await self.api.http.get(f"/api/chat/sessions/{self.id}")
        return found.status_code == 200 and "active_stream" in found.json() and len(found.json()["queued"]) == waiting

    async def cancel(self) -> None:
        """Ends what runs."""
        answer = await self.api.http.post(f"/api/chat/sessions/{self.id}/cancel")
        assert answer.json()["cancelled"] is True

    async def texts(self) -> list[tuple[str, str]]:
        """The conversation: who, and the last text of it."""
        return [(one["role"], one["parts"][-1].get("text", "")) for one in await ui(self.api, self.id)]


async def test_an_answer_is_made_anew_behind_an_edit_that_waited(api: ApiHouse) -> None:
    talk = Talk(api)
    await chat(api, talk.id, user_message("m1", "/stream 1"))
    running = await talk.sent("m2", RUNS, waits=0)
    edit = await talk.sent("m1", "/stream 3", waits=1, messageId="m1")
    anew = await talk.sent("m1", "/stream 1", waits=2, trigger="regenerate-message")
    await talk.cancel()
    await running
    assert ((await edit).text, (await anew).text) == ("0 1 2 ", "0 1 2 ")
    assert await talk.texts() == [("user", "/stream 3"), ("assistant", "0 1 2 ")]
    assert [one["id"] for one in await ui(api, talk.id)] == ["m1", (await anew).chunks[0]["messageId"]]


async def test_a_message_that_waits_is_edited_in_its_place(api: ApiHouse) -> None:
    talk = Talk(api)
    running = await talk.sent("m1", RUNS, waits=0)
    first = await talk.sent("m2", "/stream 1", waits=1)
    edited = await talk.sent("m2", "/stream 2", waits=1, messageId="m2")
    again = await talk.sent("m2", "/stream 2", waits=1, messageId="m2")
    last = await talk.sent("m3", "/stream 4", waits=2)
    await talk.cancel()
    await running
    assert [(await one).text for one in (first, edited, again, last)] == ["0 1 ", "0 1 ", "0 1 ", "0 1 2 3 "]
    assert (await first).chunks[0]["messageId"] == (await edited).chunks[0]["messageId"]
    said = [text for role, text in await talk.texts() if role == "user"]
    assert said == [RUNS, "/stream 2", "/stream 4"]


async def test_an_edit_that_waits_is_edited_itself(api: ApiHouse) -> None:
    talk = Talk(api)
    await chat(api, talk.id, user_message("m1", "/stream 1"))
    running = await talk.sent("m2", RUNS, waits=0)
    edits = [await talk.sent("m1", f"/stream {n}", waits=1, messageId="m1") for n in (2, 3)]
    await talk.cancel()
    await running
    assert [(await edit).text for edit in edits] == ["0 1 2 ", "0 1 2 "]
    assert await talk.texts() == [("user", "/stream 3"), ("assistant", "0 1 2 ")]


async def test_a_message_that_was_cancelled_while_it_waited_can_be_sent_anew_with_other_words(api: ApiHouse) -> None:
    talk = Talk(api)
    running = await talk.sent("m1", RUNS, waits=0)
    cancelled = await talk.sent("m2", "/stream 1", waits=1)
    [waiting] = (await api.session(talk.id))["queued"]
    await api.http.post(f"/api/chat/tasks/{waiting['task_id']}/cancel")
    anew = await talk.sent("m2", "/stream 2", waits=1, messageId="m2")
    await talk.cancel()
    await running
    assert ((await cancelled).text, (await anew).text) == ("", "0 1 ")
    said = [text for role, text in await talk.texts() if role == "user"]
    assert said == [RUNS, "/stream 2"]


async def test_a_message_that_waits_can_get_another_answer(api: ApiHouse) -> None:
    talk = Talk(api)
    running = await talk.sent("m1", RUNS, waits=0)
    first = await talk.sent("m2", "/stream 2", waits=1)
    second = await talk.sent("m2", "/stream 2", waits=2, trigger="regenerate-message", messageId="m2")
    await talk.cancel()
    await running
    assert ((await first).text, (await second).text) == ("0 1 ", "0 1 ")
    shown = [one["id"] for one in await ui(api, talk.id)]
    assert shown[0] == "m1"
    assert shown[-2:] == ["m2", (await second).chunks[0]["messageId"]]


async def test_an_answer_that_an_edit_took_away_is_not_an_earlier_one(api: ApiHouse) -> None:
    """A page that does not know of the edit yet names the old answer: the edited question is answered again."""
    session = new_id()
    await chat(api, session, user_message("m1", "/stream 1"))
    old = await chat(api, session, user_message("m2", "/stream 2"))
    await chat(api, session, user_message("m2", "/stream 3"), messageId="m2")
    named = {"trigger": "regenerate-message", "messageId": old.chunks[0]["messageId"]}
    anew = await chat(api, session, user_message("m2", "/stream 2"), **named)
    assert anew.text == "0 1 2 "
    assert [one["parts"][-1]["text"] for one in await ui(api, session)] == ["/stream 1", "0 ", "/stream 3", "0 1 2 "]


async def test_a_message_that_was_sent_without_an_id_is_edited_by_the_one_we_gave_it(api: ApiHouse) -> None:
    session = await api.new_session()
    await api.say(session, "/stream 1")
    [question, _] = await ui(api, session)
    edited = await chat(api, session, user_message(question["id"], "/stream 2"), messageId=question["id"])
    assert [one["id"] for one in await ui(api, session)] == [question["id"], edited.chunks[0]["messageId"]]

"""Branches: edits, other answers and cut lists keep what was there, and a session can be switched to any of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, new_id, running_api
from tests.integration.test_api_chat import chat, ui, user_message
from tests.sse_client import StrictClient

LONG = "/stream 2000 20"
AGAIN = {"trigger": "regenerate-message"}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


class Tab:
    """A page of the AI SDK: it shows a list of messages, and sends the whole list."""

    def __init__(self, api: RunningApi, session: str | None = None) -> None:
        self.api = api
        self.session = session or new_id()
        self.shown: list[Any] = []

    async def reload(self) -> Tab:
        self.shown = await ui(self.api, self.session)
        return self

    async def send(self, id: str, text: str, **body: Any) -> StrictClient:
        self.shown = [*self.shown, user_message(id, text)]
        answer = await chat(self.api, self.session, *self.shown, **body)
        said = {"id": answer.chunks[0]["messageId"], "role": "assistant", "parts": [{"type": "text", "text": "…"}]}
        self.shown = [*self.shown, said]
        return answer

    def cut(self, count: int) -> None:
        self.shown = self.shown[:count]

    async def stored(self) -> list[str]:
        return [one["id"] for one in await ui(self.api, self.session)]

    @property
    def ids(self) -> list[str]:
        return [one["id"] for one in self.shown]

    async def switch(self, message: str) -> str:
        path = f"/api/chat/sessions/{self.session}/leaf"
        answer = await self.api.http.post(path, json={"message_id": message})
        assert answer.status_code == 200, answer.text
        last: str = answer.json()["message_id"]
        return last

    async def alternatives(self, **params: Any) -> dict[str, Any]:
        found = (await self.api.session(self.session, format="ui", **params))["branches"]
        return {one["id"]: one for one in found}


async def questions(api: RunningApi, session: str) -> list[str]:
    return [one["parts"][0]["text"] for one in await ui(api, session) if one["role"] == "user"]


async def test_an_edit_keeps_the_question_and_its_answer_and_one_switches_between_them(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    await tab.send("m2", "/stream 2")
    before = await ui(api, tab.session)
    await chat(api, tab.session, user_message("m1", "/stream 3"), messageId="m1")
    assert await questions(api, tab.session) == ["/stream 3"]
    (found,) = (await tab.alternatives()).values()
    assert (found["id"], found["index"], found["count"]) == ("m1", 2, 2)
    old, new = found["siblings"]
    assert await tab.switch(old) == before[-1]["id"]
    assert await ui(api, tab.session) == before, "the whole branch, with what followed the question"
    assert (await tab.alternatives())["m1"] == {
        "id": "m1",
        "shown": old,
        "index": 1,
        "count": 2,
        "siblings": [old, new],
    }
    await tab.switch(new)
    assert await questions(api, tab.session) == ["/stream 3"]


async def test_another_answer_keeps_the_first_with_all_that_followed(api: RunningApi) -> None:
    tab = Tab(api)
    first = await tab.send("m1", "/stream 1")
    await tab.send("m2", "/stream 2")
    before = await ui(api, tab.session)
    other = await chat(api, tab.session, user_message("m1", "/stream 1"), **AGAIN, messageId="m1")
    names = [one.chunks[0]["messageId"] for one in (first, other)]
    assert await tab.alternatives() == {
        names[1]: {"id": names[1], "shown": names[1], "index": 2, "count": 2, "siblings": names}
    }
    assert await tab.switch(names[0]) == before[-1]["id"]
    assert await ui(api, tab.session) == before
    assert list(await tab.alternatives()) == [names[0]]
    rows = await api.session(tab.session)
    assert [one["id"] for one in rows["branches"]] == [names[0]], "rows have the same"


async def test_an_answer_that_failed_does_not_take_the_earlier_one_away(api: RunningApi) -> None:
    """`/fail` leaves no messages. The edit in between gives the question a text that fails."""
    tab = Tab(api)
    answer = await tab.send("m1", "/stream 1")
    good = answer.chunks[0]["messageId"]
    async with api.resources.database.connection() as c:  # the next answer to it fails before its first step
        await c.execute(
            """UPDATE messages SET parts = '[{"type": "text", "text": "/fail"}]' WHERE session_id = $1 AND step = 0""",
            tab.session,
        )
        changed = """UPDATE tasks SET request = request || '{"text": "/fail"}' WHERE session_id = $1"""
        await c.execute(changed, tab.session)
    failed = (await chat(api, tab.session, user_message("m1", "/fail"), **AGAIN)).chunks[0]["messageId"]
    assert await tab.stored() == ["m1", failed]
    assert await tab.alternatives() == {
        failed: {"id": failed, "shown": failed, "index": 2, "count": 2, "siblings": [good, failed]}
    }
    assert await tab.switch(good) == good
    assert await tab.stored() == ["m1", good]


async def test_messages_are_named_by_the_ids_of_their_rows(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    await tab.send("m2", "/stream 2")
    answer = f"{tab.session}-2"
    assert [row["id"] for row in (await api.session(tab.session))["messages"]][1] == answer
    await api.say(tab.session, "/stream 3", parent=answer)
    assert await questions(api, tab.session) == ["/stream 1", "/stream 3"]
    await tab.switch(f"{tab.session}-4")
    assert await questions(api, tab.session) == ["/stream 1", "/stream 2"]
    for unknown in (f"{tab.session}-99", f"{tab.session}-x", f"{tab.session}-{'9' * 30}"):
        refused = await api.http.post(f"/api/chat/sessions/{tab.session}/leaf", json={"message_id": unknown})
        assert refused.status_code == 404


async def test_a_word_of_accept_that_is_unknown_is_refused(api: RunningApi) -> None:
    session = await api.new_session()
    path = f"/api/chat/sessions/{session}"
    refused = await api.http.get(path, params={"accept": "reset-step,bogus"})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_error")
    assert "dynamic-tools" in refused.json()["detail"]
    assert (await api.http.get(path, params={"accept": "reset-step, ,"})).status_code == 200


async def test_a_new_message_after_a_cut_list_begins_a_branch(api: RunningApi) -> None:
    """assistant-ui's Edit, or `setMessages(messages.slice(0, n))` and `sendMessage`."""
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    await tab.send("m2", "/stream 2")
    await tab.send("m3", "/stream 3")
    before = await ui(api, tab.session)
    tab.cut(2)
    answer = await tab.send("m4", "/stream 4")
    assert await tab.stored() == tab.ids == ["m1", before[1]["id"], "m4", answer.chunks[0]["messageId"]]
    assert (await tab.alternatives())["m4"]["count"] == 2
    await tab.switch("m2")
    assert await ui(api, tab.session) == before


async def test_the_model_reads_its_own_branch_alone(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    await tab.send("m2", "/stream 2")
    tab.cut(2)
    await tab.send("m3", "/stream 3")
    async with api.resources.database.connection() as c:
        row = await c.fetchrow(
            "SELECT sum(input_tokens) AS used FROM usage JOIN tasks t ON t.id = task_id "
            "WHERE t.session_id = $1 GROUP BY t.number ORDER BY t.number OFFSET 1 LIMIT 1",
            tab.session,
        )
        other = await c.fetchrow(
            "SELECT sum(input_tokens) AS used FROM usage JOIN tasks t ON t.id = task_id "
            "WHERE t.session_id = $1 GROUP BY t.number ORDER BY t.number OFFSET 2 LIMIT 1",
            tab.session,
        )
    assert row is not None
    assert other is not None
    assert row["used"] == other["used"] > 0, "the scripted model counts its prompt: the same history before both"


async def test_a_parent_places_a_message_exactly(api: RunningApi) -> None:
    tab = Tab(api)
    first = await tab.send("m1", "/stream 1")
    await tab.send("m2", "/stream 2")
    await tab.send("m3", "/stream 3", parent=first.chunks[0]["messageId"])
    assert await questions(api, tab.session) == ["/stream 1", "/stream 3"]
    await tab.send("m4", "/stream 4", parent="")
    assert await questions(api, tab.session) == ["/stream 4"], "empty: the beginning"
    await api.say(tab.session, "/stream 5", message_id="m5", parent="m3")
    assert await questions(api, tab.session) == ["/stream 1", "/stream 3", "/stream 5"]
    await api.say(tab.session, "/stream 6", parent="")
    assert await questions(api, tab.session) == ["/stream 6"]
    await api.say(tab.session, "/stream 7", parent=None)
    assert await questions(api, tab.session) == ["/stream 6", "/stream 7"], "null is no parent"
    tab.cut(0)
    await tab.send("m8", "/stream 8", parent=None, on_stale="append")
    assert await questions(api, tab.session) == ["/stream 6", "/stream 7", "/stream 8"], "nor here"
    assert (await tab.alternatives()).popitem()[1]["count"] == 3
    body = {"id": tab.session, "messages": [user_message("m9", "x")], "parent": "msg_nowhere"}
    refused = await api.http.post("/api/chat", json=body)
    assert (refused.status_code, refused.json()["code"]) == (404, "message_not_found")


async def test_a_question_that_is_followed_directly_shows_no_answer(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    answer = await tab.send("m2", "/stream 2", parent="m1")
    assert await tab.stored() == ["m1", "m2", answer.chunks[0]["messageId"]]


@pytest.mark.parametrize(
    "before", [[], [{"id": "greeting", "role": "assistant", "parts": []}]], ids=["alone", "unknown"]
)
async def test_a_list_of_which_nothing_is_known_follows_the_conversation(api: RunningApi, before: Any) -> None:
    """A page that has no history (`useChat({ id })` after a reload) sends the same as one that has been cleared."""
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    await chat(api, tab.session, *before, user_message("m2", "/stream 2"))
    assert await questions(api, tab.session) == ["/stream 1", "/stream 2"]


async def test_a_tab_on_another_branch_continues_there(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    other = await Tab(api, tab.session).reload()
    await chat(api, tab.session, user_message("m1", "/stream 3"), messageId="m1")
    await other.send("m2", "/stream 2")
    assert await tab.stored() == other.ids
    assert await questions(api, tab.session) == ["/stream 1", "/stream 2"]


async def _while_running(tab: Tab, id: str, text: str, waits: int, **body: Any) -> asyncio.Task[StrictClient]:
    """Sends while another turn runs, and returns when `waits` turns wait."""
    sending = asyncio.create_task(tab.send(id, text, **body))
    async with asyncio.timeout(LIMIT):
        while True:
            found = await tab.api.http.get(f"/api/chat/sessions/{tab.session}")
            if (
                found.status_code == 200
                and found.json()["chat_status"] == "running"
                and len(found.json()["queued"]) == waits
            ):
                return sending
            assert not sending.done(), sending.result()
            await asyncio.sleep(0.02)


async def test_a_stale_tab_hides_no_turn_that_runs(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    stale = await Tab(api, tab.session).reload()
    running = await _while_running(tab, "m2", LONG, 0)
    waiting = await _while_running(stale, "m3", "/stream 3", 1)
    await api.http.post(f"/api/chat/sessions/{tab.session}/cancel")
    await running
    assert (await waiting).text == "0 1 2 "
    assert await questions(api, tab.session) == ["/stream 1", LONG, "/stream 3"]


async def test_a_list_that_is_all_that_the_page_shows_always_begins_a_branch(api: RunningApi) -> None:
    """assistant-ui's Edit while an answer runs, and a button that clears the chat."""
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    running = await _while_running(tab, "m2", LONG, 0)
    tab.cut(2)
    edit = await _while_running(tab, "m3", "/stream 3", 1, on_stale="branch")
    await api.http.post(f"/api/chat/sessions/{tab.session}/cancel")
    await asyncio.gather(running, edit)
    assert await questions(api, tab.session) == ["/stream 1", "/stream 3"]
    tab.cut(0)
    await tab.send("m4", "/stream 4", on_stale="branch")
    assert await questions(api, tab.session) == ["/stream 4"]


async def test_a_stale_tab_hides_nothing_that_the_server_added(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    note = {"message": "/stream 5", "is_user_message": False}
    path = f"/api/chat/sessions/{tab.session}/stream"
    await api.read("POST", path, json=note, headers={"x-api-key": SERVICE_KEY})
    await tab.send("m2", "/stream 2")
    assert [len(one["parts"][-1]["text"]) for one in await ui(api, tab.session)] == [9, 2, 10, 9, 4]


async def test_a_stale_tab_begins_a_branch_beside_an_ended_turn_unless_it_asks_to_append(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    stale, careful = [await Tab(api, tab.session).reload() for _ in range(2)]
    await tab.send("m2", "/stream 2")
    await careful.send("m3", "/stream 3", on_stale="append")
    assert await questions(api, tab.session) == ["/stream 1", "/stream 2", "/stream 3"]
    await stale.send("m4", "/stream 4")
    assert await tab.stored() == stale.ids, "the answer is one to the conversation that the page shows"
    await tab.switch((await tab.alternatives())["m4"]["siblings"][0])
    assert await questions(api, tab.session) == ["/stream 1", "/stream 2", "/stream 3"]


async def test_a_running_turn_goes_on_on_its_branch_while_another_is_shown(api: RunningApi) -> None:
    tab = Tab(api)
    first = await tab.send("m1", "/stream 1")
    running = await _while_running(tab, "m1", LONG, 0, messageId="m1")
    await tab.switch(first.chunks[0]["messageId"])
    details = await api.session(tab.session, format="ui")
    assert "active_stream" not in details
    assert details["chat_status"] == "running"
    assert [one["id"] for one in details["messages"]] == ["m1", first.chunks[0]["messageId"]]
    assert (await api.http.get(f"/api/chat/{tab.session}/stream")).status_code == 204
    waiting = await _while_running(Tab(api, tab.session), "m2", "/stream 2", 1)
    await api.http.post(f"/api/chat/sessions/{tab.session}/cancel")
    edited = await running
    await waiting
    assert await questions(api, tab.session) == ["/stream 1", "/stream 2"], "sent while that branch was shown"
    assert await tab.switch(edited.chunks[0]["messageId"]) == edited.chunks[0]["messageId"]
    assert await questions(api, tab.session) == [LONG]


async def test_messages_that_wait_follow_each_other_on_their_branch(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    running = await _while_running(tab, "m2", LONG, 0)
    tab.cut(0)
    edit = await _while_running(tab, "m1", "/stream 3", 1, messageId="m1")
    tab.cut(0)
    behind = await _while_running(tab, "m3", "/stream 4", 2)
    await api.http.post(f"/api/chat/sessions/{tab.session}/cancel")
    await asyncio.gather(running, edit, behind)
    assert await questions(api, tab.session) == ["/stream 3", "/stream 4"]


async def test_many_alternatives_are_named_around_the_shown_one(api: RunningApi) -> None:
    tab = Tab(api)
    await tab.send("m1", "/stream 1")
    for n in range(22):
        await api.say(tab.session, "/stream 1", message_id=f"n{n}", parent="")
    assert (await tab.alternatives())["n21"]["index"] == (await tab.alternatives())["n21"]["count"] == 23
    await tab.switch("m1")
    (found,) = (await tab.alternatives()).values()
    assert (found["index"], found["count"], len(found["siblings"])) == (1, 23, 20)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"message_id": "who"}, 404, "message_not_found"),
        ({"message_id": "msg_who"}, 404, "message_not_found"),
        ({"message_id": "usr_"}, 404, "message_not_found"),
        ({"message_id": ""}, 422, "validation_error"),
        ({}, 422, "validation_error"),
        ({"message_id": "m1", "more": 1}, 422, "unknown_field"),
    ],
)
async def test_an_invalid_switch_is_refused(api: RunningApi, body: Any, status: int, code: str) -> None:
    session = await api.new_session()
    answer = await api.http.post(f"/api/chat/sessions/{session}/leaf", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)

"""Tests of questions to the user: from the call that asks, to the continuation that has the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend.chat.flows.finish import end_task
from backend.chat.models import TaskStatus
from backend.chat.store import tasks
from backend.ids import SessionId
from executor.agent.agent import WAITS
from tests.e2e.sse import PACE, words_for
from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, new_id, outputs_in, running_api
from tests.sse_client import StrictClient

WORDS = words_for(1.5)
EDITED = {"id": "edited", "role": "user", "parts": [{"type": "text", "text": "/say Edited."}]}
FORM = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "title": "City", "maxLength": 20},
        "people": {"type": "integer", "minimum": 1, "maximum": 9},
        "class": {"type": "string", "enum": ["economy", "business"]},
        "window": {"type": "boolean"},
    },
    "required": ["city", "people"],
}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, ask_user="always") as resources:
        yield resources


def asking(question: str = "Which colour?", **more: Any) -> str:
    return f"/tool ask_user {json.dumps({'question': question, **more})}"


async def ask(api: RunningApi, mine: dict[str, str], text: str) -> tuple[str, list[dict[str, Any]], StrictClient]:
    """Runs a turn that asks. Returns the session, the outputs of the calls that ask, and what the page has read."""
    session = await api.new_session(mine)
    client = await api.say(session, text, mine)
    return session, [one for one in client.outputs if one["type"] == "operation_started"], client


async def answer(api: RunningApi, operation: str, mine: dict[str, str], **body: Any) -> httpx.Response:
    return await api.http.post(f"/api/chat/operations/{operation}/answer", json=body, headers=mine)


async def test_a_question_ends_its_turn_and_its_answer_continues_the_conversation(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), turn = await ask(api, mine, asking(choices=["red", "blue"]))
    assert (asked["asks"], asked["tool_name"]) == ("question", "ask_user")
    assert turn.chunks[-1]["finishReason"] == "tool-calls"
    assert not turn.text, "the model is called again only when it has the answer"
    seen = await api.session(session, mine)
    assert "active_stream" not in seen
    (pending,) = seen["operations"]
    assert pending["asks"] == {
        "kind": "question", "text": "Which colour?", "choices": ["red", "blue"], "several": False, "other": True,
    }  # fmt: skip
    assert outputs_in(seen)[0]["type"] == "operation_pending"
    done = await answer(api, asked["operation_id"], mine, answer="blue")
    assert (done.status_code, done.json()) == (200, {"status": "ok", "task_id": asked["task_id"]})
    continued = await api.ended(asked["task_id"], mine)
    assert continued.text == "The work of ask_user has ended: The user answered: blue."
    after = await api.session(session, mine)
    assert after["operations"] == []
    assert outputs_in(after) == [
        {"type": "user_answered", "message": "The user answered: blue", "answer": "blue", "session_id": session}
    ]


async def test_the_fields_of_a_form_keep_their_order(api: RunningApi) -> None:
    mine, order = api.as_user(), ["window", "people", "city", "a"]
    types = {"window": "boolean", "people": "integer"}
    fields = {name: {"type": types.get(name, "string")} for name in order}
    form = {"type": "object", "properties": fields, "propertyOrder": ["none", "of", "these"]}
    session, (asked,), _ = await ask(api, mine, asking(form=form))
    assert asked["property_order"] == order
    seen = await api.session(session, mine)
    assert seen["operations"][0]["asks"]["form"]["propertyOrder"] == order
    assert outputs_in(seen)[0]["property_order"] == order
    given = {"a": "x", "city": "Rome", "people": 2, "window": True}
    assert (await answer(api, asked["operation_id"], mine, answer=given)).status_code == 200
    assert (
        'answered: {"window": true, "people": 2, "city": "Rome", "a": "x"}'
        in (await api.ended(asked["task_id"], mine)).text
    )
    (output,) = outputs_in(await api.session(session, mine))
    assert output["property_order"] == order


async def test_the_first_answer_counts(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), _ = await ask(api, mine, asking())
    both = await asyncio.gather(*(answer(api, asked["operation_id"], mine, answer=text) for text in ("a", "b")))
    assert sorted(one.status_code for one in both) == [200, 409]
    assert next(one.json()["code"] for one in both if one.status_code == 409) == "already_completed"
    await api.ended(asked["task_id"], mine)
    first = "a" if both[0].status_code == 200 else "b"
    again = await answer(api, asked["operation_id"], mine, answer=first)
    assert again.json() == {"status": "ok", "task_id": asked["task_id"], "replayed": True}
    assert [one["answer"] for one in outputs_in(await api.session(session, mine))] == [first]


async def test_others_cannot_answer_and_services_cannot_complete_a_question(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), _ = await ask(api, mine, asking())
    operation = asked["operation_id"]
    for caller in (api.as_user(), {}):
        refused = await answer(api, operation, caller, answer="x")
        assert (refused.status_code, refused.json()["code"]) == (404, "operation_not_found")
    for path in ("complete", "progress"):
        body = {"success": True} if path == "complete" else {"percent": 5}
        done = await api.http.post(
            f"/api/chat/operations/{operation}/{path}", json=body, headers={"x-api-key": SERVICE_KEY}
        )
        assert done.status_code == 404
    assert (await api.session(session, mine))["operations"][0]["asks"]["kind"] == "question"
    unknown = await answer(api, new_id(), mine, answer="x")
    assert unknown.status_code == 404


async def test_an_answer_must_fit_the_question(api: RunningApi) -> None:
    mine = api.as_user()
    _, (chosen,), _ = await ask(api, mine, asking(choices=["a", "b"], other=False))
    _, (several,), _ = await ask(api, mine, asking(choices=["a", "b"], several=True, other=False))
    _, (form,), _ = await ask(api, mine, asking(form=FORM))
    wrong: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (chosen, [{}, {"answer": "c"}, {"answer": ["a"]}, {"answer": 1}, {"approved": True}, {"unknown": 1}]),
        (chosen, [{"answer": "a", "declined": True}, {"answer": "  "}]),
        (several, [{"answer": "a"}, {"answer": []}, {"answer": ["a", "c"]}]),
        (form, [{"answer": {"city": "Rome"}}, {"answer": {"city": "Rome", "people": 0}}, {"answer": {"x": 1}}]),
        (form, [{"answer": {"city": "R" * 21, "people": 1}}, {"answer": {"city": "R", "people": True}}]),
        (form, [{"answer": {"city": "Rome", "people": 1, "class": "first"}}, {"answer": "Rome"}]),
    ]
    for asked, bodies in wrong:
        for body in bodies:
            refused = await answer(api, asked["operation_id"], mine, **body)
            assert refused.status_code == 422, (body, refused.text)
    right = {"city": "Rome", "people": 2, "class": "business", "window": True}
    for asked, given in ((chosen, "b"), (several, ["a", "b"]), (form, right)):
        assert (await answer(api, asked["operation_id"], mine, answer=given)).status_code == 200
    continued = await api.ended(form["task_id"], mine)
    assert "Rome" in continued.text


async def test_a_question_can_be_declined(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), _ = await ask(api, mine, asking())
    assert (await answer(api, asked["operation_id"], mine, declined=True)).status_code == 200
    await api.ended(asked["task_id"], mine)
    (output,) = outputs_in(await api.session(session, mine))
    assert (output["type"], output["declined"]) == ("user_answered", True)


@pytest.mark.parametrize("wrong", [{"choices": ["a"], "form": FORM}, {"form": {"type": "array"}}, {"form": {}}])
async def test_a_model_that_asks_an_invalid_question_gets_an_error(api: RunningApi, wrong: dict[str, Any]) -> None:
    session = await api.new_session()
    client = await api.say(session, asking(**wrong))
    (output,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert output["type"] == "input_validation_error"
    assert client.text, "the turn goes on"


async def test_a_user_who_writes_something_else_is_answered_and_may_answer_the_question_later(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), _ = await ask(api, mine, asking())
    other = await api.say(session, "/stream 3", mine)
    assert other.text == "0 1 2 "
    seen = await api.session(session, mine)
    assert "stands open" in outputs_in(seen)[0]["message"], "which is what the model reads"
    busy = asyncio.create_task(api.say(session, f"/stream {WORDS} {PACE}", mine))
    await api.active_stream(session, mine)
    assert (await answer(api, asked["operation_id"], mine, answer="red")).status_code == 200
    await busy
    continued = await api.ended(asked["task_id"], mine)
    assert "red" in continued.text


async def test_parallel_questions_continue_together_with_the_last_answer(api: RunningApi) -> None:
    mine = api.as_user()
    search = '/tool search_docs {"query": "stream"}'
    session, asked, turn = await ask(api, mine, f"{asking('One?')}\n{search}\n{asking('Two?')}")
    assert len(asked) == 2
    assert not turn.text
    assert (await answer(api, asked[1]["operation_id"], mine, answer="second")).status_code == 200
    first = await api.ended(asked[1]["task_id"], mine)
    assert first.text == "", "the other question has no answer yet"
    assert first.chunks[-1]["finishReason"] == "tool-calls"
    assert (await answer(api, asked[0]["operation_id"], mine, answer="first")).status_code == 200
    last = await api.ended(asked[0]["task_id"], mine)
    assert "first" in last.text
    outputs = outputs_in(await api.session(session, mine))
    assert [one.get("answer") for one in outputs] == ["first", None, "second"]


async def test_parallel_questions_answered_at_once_are_all_applied_and_one_continuation_speaks(api: RunningApi) -> None:
    mine = api.as_user()
    session, asked, _ = await ask(api, mine, "\n".join(asking(f"{n}?") for n in range(4)))
    done = await asyncio.gather(*(answer(api, one["operation_id"], mine, answer="yes") for one in asked))
    assert {one.status_code for one in done} == {200}
    texts = [(await api.ended(one["task_id"], mine)).text for one in asked]
    assert sum(bool(text) for text in texts) == 1
    assert [one["answer"] for one in outputs_in(await api.session(session, mine))] == ["yes"] * 4


async def cancel(api: RunningApi, asked: dict[str, Any], mine: dict[str, str]) -> httpx.Response:
    return await api.http.post(f"/api/chat/tasks/{asked['task_id']}/cancel", headers=mine)


async def spoken(api: RunningApi, session: str, mine: dict[str, str]) -> list[str]:
    """Returns what the model has said in the session, once nothing of it runs or waits."""
    async with asyncio.timeout(LIMIT):
        while True:
            async with api.resources.database.connection() as c:
                if not await tasks.unended_tasks(c, SessionId(session)):
                    break
            await asyncio.sleep(0.05)
    rows = (await api.session(session, mine))["messages"]
    parts = [part for row in rows if row["role"] == "assistant" for part in row["parts"]]
    return [part["text"] for part in parts if part["type"] == "text"]


async def two_questions(api: RunningApi, mine: dict[str, str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    session, (one, two), _ = await ask(api, mine, f"{asking('One?')}\n{asking('Two?')}")
    return session, one, two


async def answer_first(api: RunningApi, one: dict[str, Any], mine: dict[str, str]) -> None:
    """Answers one of several questions, whose continuation then says nothing."""
    assert (await answer(api, one["operation_id"], mine, answer="first")).status_code == 200
    assert (await api.ended(one["task_id"], mine)).text == ""


async def test_the_model_goes_on_once_when_the_last_of_several_questions_is_cancelled(api: RunningApi) -> None:
    mine = api.as_user()
    session, one, two = await two_questions(api, mine)
    await answer_first(api, one, mine)
    assert (await cancel(api, two, mine)).json()["cancelled"] is True
    assert await spoken(api, session, mine) == ["The work of ask_user has ended: The user answered: first."]
    assert (await cancel(api, two, mine)).json()["cancelled"] is False
    assert len(await spoken(api, session, mine)) == 1
    outputs = outputs_in(await api.session(session, mine))
    assert {one.get("answer", one.get("error")) for one in outputs} == {"first", "cancelled"}


async def test_the_model_goes_on_when_a_question_has_expired_and_the_last_one_is_cancelled(api: RunningApi) -> None:
    mine = api.as_user()
    session, one, two = await two_questions(api, mine)
    async with api.resources.database.connection() as c:
        await c.execute("UPDATE tasks SET deadline_at = now() WHERE id = $1", one["task_id"])
    assert (await api.ended(one["task_id"], mine)).text == ""
    await cancel(api, two, mine)
    assert len(await spoken(api, session, mine)) == 1


async def test_the_turn_stays_quiet_when_the_user_cancels_all_its_questions(api: RunningApi) -> None:
    mine = api.as_user()
    session, one, two = await two_questions(api, mine)
    await asyncio.gather(cancel(api, one, mine), cancel(api, two, mine))
    assert await spoken(api, session, mine) == []


async def test_a_question_that_an_edit_withdraws_continues_nothing(api: RunningApi) -> None:
    mine = api.as_user()
    session, one, _ = await two_questions(api, mine)
    await answer_first(api, one, mine)
    (asked,) = [row for row in (await api.session(session, mine))["messages"] if row["role"] == "user"]
    edit = {"id": session, "messageId": asked["id"], "messages": [EDITED]}
    reply, _ = await api.read("POST", "/api/chat", json=edit, headers=mine)
    assert reply.status_code == 200
    assert await spoken(api, session, mine) == ["Edited."]
    async with api.resources.database.connection() as c:
        assert await c.fetchval("SELECT count(*) FROM tasks WHERE session_id = $1", session) == 4


async def test_questions_that_are_answered_and_cancelled_at_once_are_continued_once(api: RunningApi) -> None:
    mine = api.as_user()

    async def race() -> None:
        session, (one, two, three), _ = await ask(api, mine, "\n".join(asking(f"{n}?") for n in range(3)))
        await asyncio.gather(
            answer(api, one["operation_id"], mine, answer="yes"),
            cancel(api, two, mine),
            cancel(api, three, mine),
        )
        assert len(await spoken(api, session, mine)) == 1

    for _ in range(3):
        await asyncio.gather(race(), race())


async def test_a_question_that_is_cancelled_before_an_unspoken_answer_has_ended_is_continued_once(
    api: RunningApi,
) -> None:
    """The continuation of the answer has seen that the other question is open, and ends without the model."""
    mine = api.as_user()
    session, one, two = await two_questions(api, mine)
    await answer_first(api, one, mine)
    async with api.resources.database.connection() as c:
        await c.execute(
            "UPDATE tasks SET status = 'running', active_session_id = session_id, finished_at = NULL,"
            " answer_end = NULL, owner = (SELECT id FROM executors ORDER BY seen_at DESC LIMIT 1) WHERE id = $1",
            one["task_id"],
        )
        unspoken = await tasks.get_task(c, one["task_id"])
    await cancel(api, two, mine)
    ending = await end_task(api.resources, unspoken, status=TaskStatus.COMPLETED, answer_end=WAITS)
    assert ending.next_turn is not None
    await api.resources.outbox.publish(ending.next_turn)
    assert len(await spoken(api, session, mine)) == 1


async def test_the_feed_tells_of_the_question_and_of_its_answer(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    events: list[dict[str, Any]] = []

    async def read_feed() -> None:
        async with api.http.stream("GET", f"/api/chat/events?session_id={session}", headers=mine) as feed:
            async for line in feed.aiter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))

    reading = asyncio.create_task(read_feed())
    try:
        async with asyncio.timeout(LIMIT):
            while not events:
                await asyncio.sleep(0.02)
            await api.say(session, asking(), mine)
            while not (started := [one for one in events if one["type"] == "operation-started"]):
                await asyncio.sleep(0.02)
            assert started[0]["asks"] == "question"
            await answer(api, started[0]["operation_id"], mine, answer="x")
            while not any(one["type"] == "operation-finished" for one in events):
                await asyncio.sleep(0.02)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_cancelled_question_is_over(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), _ = await ask(api, mine, asking())
    cancelled = await api.http.post(f"/api/chat/tasks/{asked['task_id']}/cancel", headers=mine)
    assert cancelled.json()["cancelled"] is True
    late = await answer(api, asked["operation_id"], mine, answer="x")
    assert (late.status_code, late.json()["code"]) == (410, "operation_gone")
    seen = await api.session(session, mine)
    assert seen["operations"] == []
    assert outputs_in(seen)[0]["error"] == "cancelled"


async def test_a_question_ends_with_its_session_and_with_its_turn(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), _ = await ask(api, mine, asking())
    assert (await api.http.delete(f"/api/chat/sessions/{session}", headers=mine)).status_code == 204
    assert (await answer(api, asked["operation_id"], mine, answer="x")).status_code == 404
    session, (asked,), _ = await ask(api, mine, asking())
    regenerated = {"id": session, "messages": [], "trigger": "regenerate-message"}
    reply, _ = await api.read("POST", "/api/chat", json=regenerated, headers=mine)
    assert reply.status_code == 200
    async with asyncio.timeout(LIMIT):
        while asked["operation_id"] in [o["operation_id"] for o in (await api.session(session, mine))["operations"]]:
            await asyncio.sleep(0.05)
    late = await answer(api, asked["operation_id"], mine, answer="x")
    assert late.status_code == 410
    assert len((await api.session(session, mine))["operations"]) == 1, "the question of the new answer stands open"


async def test_a_question_without_an_answer_ends_at_its_deadline(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,), _ = await ask(api, mine, asking())
    async with api.resources.database.connection() as c:
        await c.execute("UPDATE tasks SET deadline_at = now() WHERE id = $1", asked["task_id"])
    continued = await api.ended(asked["task_id"], mine)
    assert "has not answered in time" in continued.text
    (output,) = outputs_in(await api.session(session, mine))
    assert output["error"] == "not_answered"
    late = await answer(api, asked["operation_id"], mine, answer="x")
    assert (late.status_code, late.json()["code"]) == (410, "operation_gone")


async def test_the_tool_is_offered_to_pages_that_show_questions(api: RunningApi) -> None:
    # the scripted model counts the words of its prompt, not its tools; so the request in the row is what is looked at
    mine = api.as_user()
    session = await api.new_session(mine)
    path = f"/api/chat/sessions/{session}/stream"
    _, shown = await api.read("POST", path, params={"accept": "questions"}, json={"message": asking()}, headers=mine)
    (asked,) = [chunk["output"] for chunk in shown.chunks if chunk["type"] == "tool-output-available"]
    async with api.resources.database.connection() as c:
        rows = await c.fetch(
            "SELECT request->'takes_questions' AS takes FROM tasks WHERE session_id = $1 ORDER BY number", session
        )
    assert [row["takes"] for row in rows] == [True, True], "the continuation may ask again"
    await answer(api, asked["operation_id"], mine, answer="x")
    await api.ended(asked["task_id"], mine)

"""Pages of a conversation are bounded in bytes, and every message and every whole result can be reached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest

from backend.chat.models import (
    Caller,
    ContextPart,
    Json,
    NewMessage,
    NotePart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    TurnRequest,
)
from backend.chat.outcomes import Outcome, ToolWork
from backend.chat.store import messages, operations, tasks
from backend.chat.store.history_pages import PAGE_BYTES, newest_messages
from backend.ids import SessionId, TaskId, new_task_id
from tests.integration.running_api import RunningApi, running_api

NOBODY = Caller(None, "192.0.2.1")
REST = 32_768
"""Bytes for all of an answer but its messages: metadata, usage, names."""
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as resources:
        yield resources


async def a_turn(
    api: RunningApi, session: str, text: str, outputs: Sequence[Json], *, context: str | None = None
) -> TaskId:
    """Stores a completed turn with one step for each output."""
    id, asked = SessionId(session), [ContextPart(None, context)] if context is not None else []
    async with api.resources.database.transaction() as c:
        task = await tasks.insert_task(
            c,
            task_id=new_task_id(),
            session_id=id,
            caller=NOBODY,
            request=TurnRequest(text, context=asked[0] if asked else None),
            message_key=None,
            active=False,
        )
        await messages.append_messages(c, id, task.id, 0, [NewMessage(Role.USER, (*asked, TextPart(text)))])
        for step, output in enumerate(outputs, 1):
            call = f"call/{step} of {text[:10]}"
            rows = [
                NewMessage(Role.ASSISTANT, (ToolCallPart(call, "search_docs", {"n": step}),)),
                NewMessage(Role.TOOL, (ToolResultPart(call, "search_docs", output),)),
            ]
            await messages.append_messages(c, id, task.id, step, rows)
        done = [NewMessage(Role.ASSISTANT, (TextPart(f"answer to {text[:10]}"),))]
        await messages.append_messages(c, id, task.id, len(outputs) + 1, done)
        await c.execute("UPDATE tasks SET status = 'completed', finished_at = now() WHERE id = $1", task.id)
    return task.id


def a_result(size: int, letter: str = "x") -> Json:
    return {"type": "doc_search_results", "message": "Found.", "text": letter * size}


async def pages_of(api: RunningApi, session: str, form: str, **params: Any) -> list[list[Json]]:
    """Reads the whole conversation, oldest page last. No page is too large."""
    found: list[list[Json]] = []
    before: dict[str, int] = {}
    while True:
        answer = await api.http.get(f"/api/chat/sessions/{session}", params={"format": form, **params, **before})
        assert answer.status_code == 200, answer.text
        assert len(answer.content) <= PAGE_BYTES + REST
        body = answer.json()
        found.append(body["messages"])
        if "older" not in body:
            return found
        assert body["older"] < before.get("before", 2**31)
        before = {"before": body["older"]}


def outputs_in(shown: Sequence[Json]) -> list[Json]:
    parts = [part for message in shown for part in message["parts"]]
    return [part["output"] for part in parts if "output" in part]


@pytest.mark.parametrize(
    ("letter", "size"), [("x", MEGABYTE), ('"', 110_000), ("😀", 110_000), ("\u0001", 110_000)], ids=repr
)
@pytest.mark.parametrize("form", ["rows", "ui"])
async def test_ten_long_results_come_in_bounded_pages(api: RunningApi, form: str, letter: str, size: int) -> None:
    session = await api.new_session()
    for n in range(10):
        await a_turn(api, session, f"question {n}", [a_result(size, letter)])
    pages = await pages_of(api, session, form, limit=500)
    shown = [message for page in reversed(pages) for message in page]
    assert len(shown) == (20 if form == "ui" else 40)
    assert len({message["id"] for message in shown}) == len(shown)
    for output in outputs_in(shown):
        assert output["type"] == "doc_search_results"
        assert output["characters"] > len(output["beginning"])
        assert str(output["characters"]) in output["cut"]
        assert output["whole"] in output["cut"]
    assert (await api.http.get(output["whole"])).json()["output"] == a_result(size, letter)


@pytest.mark.parametrize("form", ["rows", "ui"])
async def test_one_turn_with_more_results_than_a_page_holds_is_shown(api: RunningApi, form: str) -> None:
    session = await api.new_session()
    task = await a_turn(api, session, "many", [*[a_result(90_000)] * 40, a_result(10)])
    await a_turn(api, session, "later", [])
    pages = await pages_of(api, session, form, limit=500)
    outputs = [output for page in reversed(pages) for output in outputs_in(page)]
    assert len(outputs) == 41
    assert outputs[-1] == a_result(10)
    if form == "ui":
        assert [message["id"] for page in pages for message in page].count(f"msg_{task}") == 1
        assert all(output["characters"] > 90_000 for output in outputs[:-1])
    else:
        assert outputs[:-1] == [a_result(90_000)] * 40  # they fit, on several pages


async def test_a_page_that_begins_inside_a_long_turn_is_bounded(api: RunningApi) -> None:
    session = await api.new_session()
    await a_turn(api, session, "many", [a_result(200_000)] * 60)
    (page,) = await pages_of(api, session, "ui", limit=5)
    assert [message["role"] for message in page] == ["user", "assistant"]
    assert len(outputs_in(page)) == 60


async def test_long_texts_come_in_bounded_pages(api: RunningApi) -> None:
    session = await api.new_session()
    for n in range(30):
        await a_turn(api, session, f"{n:02}" + "😀" * 63_000, [])
    for form in ("rows", "ui"):
        pages = await pages_of(api, session, form)
        asked = [one for page in reversed(pages) for one in page if one["role"] == "user"]
        assert [one["parts"][0]["text"][:2] for one in asked] == [f"{n:02}" for n in range(30)]


async def test_what_a_page_does_not_show_is_not_read(api: RunningApi) -> None:
    session = await api.new_session()
    for n in range(20):
        await a_turn(api, session, f"question {n}", [], context="c" * 200_000)
    async with api.resources.database.snapshot() as c:
        newest = await newest_messages(c, SessionId(session), limit=100)
        found = await tasks.find_tasks(c, [row.task_id for row in newest.rows], brief=True)
    assert len(newest.rows) == 40
    assert not [part for row in newest.rows for part in row.parts if isinstance(part, ContextPart | NotePart)]
    assert not [task for task in found if task.request.context is not None]
    assert len(await pages_of(api, session, "ui")) == 1


async def test_the_result_of_an_operation_is_cut_and_read_whole(api: RunningApi) -> None:
    session = SessionId(await api.new_session())
    turn = await a_turn(api, session, "make", [{"type": "operation_pending", "message": "…"}])
    work = ToolWork(turn, "make", "an operation's call", {}, order={"graph": "g" * 500_000})
    async with api.resources.database.transaction() as c:
        operation = await operations.register(c, session, work, limit=60)
        result = a_result(MEGABYTE)
        await operations.continue_operation(c, operation, Outcome(True, result), result, "a note")
        await c.execute("UPDATE tasks SET active_session_id = NULL WHERE id = $1", operation.task_id)
    body = await api.session(session)
    assert [one["operation_id"] for one in body["operations"]] == [operation.id]
    async with api.resources.database.transaction() as c:
        (unended,) = await operations.unended_operations(c, session)
        assert unended.work.order is None
        assert unended.result == {}
        note = NewMessage(Role.USER, (NotePart("a note"),))
        await messages.append_messages(c, session, operation.task_id, 0, [note])
        await c.execute("UPDATE tasks SET status = 'completed' WHERE id = $1", operation.task_id)
    (page,) = await pages_of(api, session, "ui")
    output = outputs_in(page)[-1]
    assert output["type"] == "doc_search_results"
    assert len(output["beginning"]) == 100_000
    assert (await api.http.get(output["whole"])).json()["output"] == result


@pytest.mark.parametrize("text", ["t" * 300_000, "\u0000\ud800" * 60_000])
async def test_an_output_that_is_a_text_stays_one(api: RunningApi, text: str) -> None:
    session = await api.new_session()
    task = await a_turn(api, session, "text", [text])
    (page,) = await pages_of(api, session, "ui")
    (output,) = outputs_in(page)
    whole = f"/api/chat/tasks/{task}/results/{quote('call/1 of text', safe='')}"
    assert output.endswith(
        f"[cut: the output has {len(text)} characters; the first 100000 are shown; GET {whole} returns all of it]"
    )
    assert len((await api.http.get(whole)).json()["output"]) == len(text)


async def test_only_what_is_there_is_returned(api: RunningApi) -> None:
    session = await api.new_session()
    task = await a_turn(api, session, "short", [a_result(10)])
    found = await api.http.get(f"/api/chat/tasks/{task}/results/{quote('call/1 of short', safe='')}")
    assert found.json() == {
        "type": "tool_result",
        "tool_call_id": "call/1 of short",
        "tool_name": "search_docs",
        "output": a_result(10),
        "is_error": False,
    }
    for id in ("call", "call/2 of short", "x" * 3_000):
        missing = await api.http.get(f"/api/chat/tasks/{task}/results/{quote(id, safe='')}")
        assert (missing.status_code, missing.json()["code"]) == (404, "result_not_found"), id

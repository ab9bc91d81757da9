"""Whole conversations: import of an export, share links, folders, and feedback about answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.api.app import SHARED_READS
from backend.api.importing import read_turns
from backend.chat.models import Caller
from backend.chat.store import sessions
from backend.chat.store.conversations.imports import ImportedConversation, write_conversation
from backend.ids import SessionId
from tests.integration.running_api import RunningApi, new_id, new_user, running_api
from tests.integration.test_api_chat import chat, user_message

Headers = dict[str, str]


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, share_links=True) as resources:
        yield resources


async def exported(api: RunningApi, session: str, headers: Headers | None = None) -> dict[str, Any]:
    answer = await api.http.get(f"/api/chat/sessions/{session}/export", params={"format": "json"}, headers=headers)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def shown(api: RunningApi, session: str, headers: Headers | None = None) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = (await api.session(session, headers, format="ui"))["messages"]
    return messages


def shape(document: dict[str, Any]) -> Any:
    """Returns what an import keeps: the texts and ends of all messages with their places, without the ids of tasks."""
    tree = document.get("tree") or [
        {"name": str(n), "after": None if n == 0 else str(n - 1), "message": n}
        for n in range(len(document["messages"]))
    ]
    places = {item["name"]: n for n, item in enumerate(tree)}
    shapes = []
    for item in tree:
        is_shown = isinstance(item["message"], int)
        message = document["messages"][item["message"]] if is_shown else item["message"]
        parts = [
            {name: value for name, value in part.items() if name not in ("id", "data")} | _text_of(part)
            for part in message["parts"]
        ]
        kept = {name: value for name, value in (message.get("metadata") or {}).items() if name == "status"}
        shapes.append((message["role"], parts, kept, is_shown, places.get(item["after"], -1)))
    return shapes


def _text_of(part: dict[str, Any]) -> dict[str, Any]:
    data = part.get("data")
    return {"said": data.get("message")} if isinstance(data, dict) else {}


async def with_branches(api: RunningApi) -> str:
    """Makes a conversation with a tool's call, another answer, an edit on two branches, and a stopped answer."""
    session = new_id()
    await chat(api, session, user_message("m1", '/tool find_library_agent {"query": "mail"}'))
    await chat(api, session, user_message("m2", "/stream 2"))
    await chat(api, session, user_message("m2", "/stream 2"), trigger="regenerate-message")
    await chat(api, session, user_message("m3", "/reason hm"))
    await chat(api, session, user_message("m2", "/stream 3"), messageId="m2")
    await chat(api, session, user_message("m4", "/fail"))
    return session


async def test_an_imported_conversation_has_all_branches_and_belongs_to_the_caller(api: RunningApi) -> None:
    session = await with_branches(api)
    before = await exported(api, session)
    assert len(before["tree"]) > len(before["messages"])
    mine = api.as_user()
    made = await api.http.post("/api/chat/sessions/import", json=before, headers=mine)
    assert made.status_code == 201, made.text
    copy = made.json()["id"]
    assert made.json()["messages"] == len(before["tree"])
    after = await exported(api, copy, mine)
    assert shape(after) == shape(before)
    assert (await api.http.get(f"/api/chat/sessions/{copy}")).status_code == 404  # it is the caller's
    details = await api.session(copy, mine, format="ui")
    assert details["branches"]
    assert details["chat_status"] == "idle"
    other = next(one for one in details["branches"] if one["id"] == "m2")
    leaf = await api.http.post(
        f"/api/chat/sessions/{copy}/leaf", json={"message_id": other["siblings"][0]}, headers=mine
    )
    assert leaf.status_code == 200, leaf.text
    await api.say(copy, "/stream 1", mine)  # it goes on like any other
    assert [one["role"] for one in await shown(api, copy, mine)][-2:] == ["user", "assistant"]


async def test_an_import_can_be_repeated_and_is_done_once(api: RunningApi) -> None:
    session = await with_branches(api)
    document, mine, id = await exported(api, session), api.as_user(), new_id()
    answers = [
        await api.http.post("/api/chat/sessions/import", params={"id": id}, json=document, headers=mine)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert [answer.json()["id"] for answer in answers] == [id, id]
    assert shape(await exported(api, id, mine)) == shape(document)
    foreign = await api.http.post("/api/chat/sessions/import", params={"id": id}, json=document, headers=api.as_user())
    assert (foreign.status_code, foreign.json()["code"]) == (404, "session_not_found")


def text(role: str, said: Any) -> dict[str, Any]:
    return {"id": "m", "role": role, "parts": [{"type": "text", "text": said}]}


DOCUMENT = {"format": "copilot-conversation", "version": 1}
HELLO = text("user", "hello")
BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "another format": ("validation_error", {"format": "chatgpt", "version": 1, "messages": []}),
    "another version": ("validation_error", {**DOCUMENT, "version": 2, "messages": []}),
    "no messages": ("validation_error", DOCUMENT),
    "a role": ("invalid_conversation", {**DOCUMENT, "messages": [text("system", "x")]}),
    "no text": ("invalid_conversation", {**DOCUMENT, "messages": [text("user", " ")]}),
    "a number": ("invalid_conversation", {**DOCUMENT, "messages": [text("user", 5)]}),
    "no parts": ("invalid_conversation", {**DOCUMENT, "messages": [{"role": "user"}]}),
    "a call without an id": (
        "invalid_conversation",
        {**DOCUMENT, "messages": [{"role": "assistant", "parts": [{"type": "dynamic-tool", "toolName": "x"}]}]},
    ),
    "a tree without the messages": (
        "invalid_conversation",
        {**DOCUMENT, "messages": [HELLO], "tree": [{"name": "a", "after": None, "message": HELLO}]},
    ),
    "a circle": (
        "invalid_conversation",
        {**DOCUMENT, "messages": [HELLO], "tree": [{"name": "a", "after": "a", "message": 0}]},
    ),
    "a title": ("invalid_conversation", {**DOCUMENT, "messages": [HELLO], "session": {"title": 5}}),
    "much metadata": (
        "invalid_conversation",
        {**DOCUMENT, "messages": [HELLO], "session": {"metadata": {"a": "x" * 20_000}}},
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_was_not_exported_is_refused(api: RunningApi, what: str) -> None:
    code, document = BROKEN[what]
    answer = await api.http.post("/api/chat/sessions/import", json=document)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


async def test_an_import_takes_over_nothing_that_only_had_a_meaning_elsewhere(api: RunningApi) -> None:
    """Names of files stay, calls without a result end with an error, and a repeated call is there once."""
    call = {"type": "dynamic-tool", "toolCallId": "c1", "toolName": "x", "input": {}, "state": "output-available"}
    pending = {**call, "output": {"type": "operation_pending", "operation_id": "o"}}
    file = {"type": "file", "url": "/api/chat/files/x", "mediaType": "image/png", "filename": "cat.png"}
    asks = {"type": "dynamic-tool", "toolCallId": "c2", "toolName": "y", "input": {}, "state": "input-available"}
    messages = [
        {"id": "m1", "role": "user", "parts": [file]},
        {"role": "assistant", "parts": [{"type": "step-start"}, pending, asks]},
        {
            "role": "assistant",
            "parts": [{"type": "step-start"}, {**call, "output": {"done": 1}}, text("", "ok")["parts"][0]],
        },
    ]
    made = await api.http.post("/api/chat/sessions/import", json={**DOCUMENT, "messages": messages})
    assert made.status_code == 201, made.text
    question, first, second = await shown(api, made.json()["id"])
    assert question["parts"] == [{"type": "text", "text": "(File, not imported: cat.png)"}]
    assert [part.get("output") or part.get("errorText") for part in first["parts"][1:]] == [
        {"done": 1},
        "This call had no result when the conversation was exported.",
    ]
    assert [part["type"] for part in second["parts"]] == ["step-start", "text"]


async def test_a_share_link_shows_a_copy_of_the_texts_until_it_is_withdrawn(api: RunningApi) -> None:
    mine = api.as_user()
    session = (await api.http.post("/api/chat/sessions", json={"metadata": {"secret": 1}}, headers=mine)).json()["id"]
    await api.http.patch(
        f"/api/chat/sessions/{session}", json={"title": "Shown", "instructions": "secret"}, headers=mine
    )
    await api.say(session, "/reason a secret thought", mine, metadata={"secret": 2})
    await api.say(session, '/tool find_library_agent {"query": "secret"}', mine)
    path = f"/api/chat/sessions/{session}/share"
    assert (await api.http.get(path, headers=mine)).json() == {"enabled": True, "share": None}
    made = await api.http.put(path, headers=mine)
    assert made.status_code == 200, made.text
    link = made.json()["path"]
    assert (await api.http.get(path, headers=mine)).json()["share"] == made.json()
    copy = await api.http.get(f"/api/chat/shared/{link.removeprefix('/s/')}")
    assert copy.status_code == 200
    assert copy.headers["x-robots-tag"] == "noindex, nofollow"
    assert copy.headers["cache-control"] == "no-store"
    document = copy.json()
    assert document["title"] == "Shown"
    assert set(document) == {"title", "created_at", "messages"}
    kinds = {part["type"] for message in document["messages"] for part in message["parts"]}
    assert kinds == {"text"}
    assert [m for m in document["messages"] if m["role"] == "assistant"]
    answers = [message for message in document["messages"] if message["role"] == "assistant"]
    assert "secret" not in str(answers)
    assert session not in copy.text
    await api.say(session, "/say later", mine)
    assert (await api.http.get(f"/api/chat/shared/{link.removeprefix('/s/')}")).json() == document
    again = await api.http.put(path, headers=mine)
    assert again.json()["path"] == link
    assert len((await api.http.get(f"/api/chat/shared/{link.removeprefix('/s/')}")).json()["messages"]) > 4
    assert (await api.http.delete(path, headers=mine)).status_code == 204
    gone = await api.http.get(f"/api/chat/shared/{link.removeprefix('/s/')}")
    assert (gone.status_code, gone.json()["code"]) == (404, "share_not_found")
    assert (await api.http.put(path, headers=mine)).json()["path"] != link


async def test_the_log_has_no_share_link(api: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    secret = "S" * 43
    with caplog.at_level(logging.INFO, "backend.api.middleware"):
        for path in (f"/s/{secret}", f"/s/{secret}/", f"/api/chat/shared/{secret}"):
            await api.http.get(path)
    lines = [vars(record) for record in caplog.records if record.name == "backend.api.middleware"]
    assert [line["path"] for line in lines] == ["/s/{share_token}", "unknown", "/api/chat/shared/{share_token}"]
    assert secret not in str(lines)


async def test_share_links_are_off_by_default_and_bounded_for_each_address(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        session = await api.new_session()
        path = f"/api/chat/sessions/{session}/share"
        assert (await api.http.get(path)).json() == {"enabled": False, "share": None}
        refused = await api.http.put(path)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        answers = [await api.http.get(f"/api/chat/shared/{'A' * 43}") for _ in range(SHARED_READS + 1)]
        assert {answer.status_code for answer in answers[:-1]} == {404}
        assert (answers[-1].status_code, answers[-1].json()["code"]) == (429, "too_many_reads")
        assert int(answers[-1].headers["retry-after"]) > 0


async def test_sessions_are_in_folders_of_their_user(api: RunningApi) -> None:
    mine, theirs = api.as_user(), api.as_user()
    made = await api.http.post("/api/chat/folders", json={"name": "  Work  items "}, headers=mine)
    assert (made.status_code, made.json()["name"]) == (201, "Work items")
    again = await api.http.post("/api/chat/folders", json={"name": "Work items"}, headers=mine)
    assert (again.status_code, again.json()) == (200, made.json())
    folder = made.json()["id"]
    other = (await api.http.post("/api/chat/folders", json={"name": "Home"}, headers=mine)).json()["id"]
    renamed = await api.http.patch(f"/api/chat/folders/{other}", json={"name": "Work items"}, headers=mine)
    assert (renamed.status_code, renamed.json()["code"]) == (409, "folder_exists")
    session, outside = await api.new_session(mine), await api.new_session(mine)
    moved = await api.http.patch(f"/api/chat/sessions/{session}", json={"folder_id": folder}, headers=mine)
    assert moved.json()["folder_id"] == folder

    async def listed(**params: Any) -> set[str]:
        answer = await api.http.get("/api/chat/sessions", params=params, headers=mine)
        return {one["id"] for one in answer.json()["sessions"]}

    assert await listed(folder_id=folder) == {session}
    assert await listed() == {session, outside}
    foreign = await api.http.patch(
        f"/api/chat/sessions/{await api.new_session(theirs)}", json={"folder_id": folder}, headers=theirs
    )
    assert (foreign.status_code, foreign.json()["code"]) == (404, "folder_not_found")
    anonymous = await api.http.patch(f"/api/chat/sessions/{await api.new_session()}", json={"folder_id": folder})
    assert (anonymous.status_code, anonymous.json()["code"]) == (404, "folder_not_found")
    assert (await api.http.delete(f"/api/chat/folders/{folder}", headers=mine)).status_code == 204
    assert (await api.session(session, mine))["folder_id"] is None
    assert [one["name"] for one in (await api.http.get("/api/chat/folders", headers=mine)).json()["folders"]] == [
        "Home"
    ]


async def test_feedback_about_an_answer_is_in_the_history_and_in_the_export(api: RunningApi) -> None:
    user = new_user()
    mine = api.as_user(user)
    session = await api.new_session(mine)
    await api.say(session, "/stream 2", mine)
    answer = (await shown(api, session, mine))[-1]["id"]
    path = f"/api/chat/sessions/{session}/messages/{answer}/feedback"
    given = await api.http.put(path, json={"rating": "down", "comment": "too short"}, headers=mine)
    assert given.status_code == 200, given.text
    assert (await shown(api, session, mine))[-1]["metadata"]["feedback"] == {"rating": "down", "comment": "too short"}
    await api.http.put(path, json={"rating": "up"}, headers=mine)
    document = await exported(api, session, mine)
    assert document["messages"][-1]["metadata"]["feedback"] == {"rating": "up", "comment": None}
    question = path.replace(answer, document["messages"][0]["id"])
    for other in (question, path.replace(answer, f"msg_{new_id()}")):
        missing = await api.http.put(other, json={"rating": "up"}, headers=mine)
        assert (missing.status_code, missing.json()["code"]) == (404, "message_not_found")
    assert (await api.http.delete(path, headers=mine)).status_code == 204
    assert "feedback" not in (await shown(api, session, mine))[-1]["metadata"]


async def test_an_import_finds_each_task_by_its_key(api: RunningApi) -> None:
    """Also with the plans of a connection that were made when there were few tasks."""
    session_id, count = SessionId(new_id()), 400
    shown = [{"role": "user", "parts": [{"type": "text", "text": f"{n}"}]} for n in range(count)]
    async with api.resources.database.transaction() as c:
        await c.execute("DISCARD PLANS")
        await c.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await c.execute("SET LOCAL enable_indexscan = off")
        await c.execute("SET LOCAL enable_bitmapscan = off")
        await sessions.create_session(c, first := SessionId(new_id()), None, {})
        await write_conversation(
            c, first, Caller(None, "a"), None, ImportedConversation.of(read_turns(shown[:1], None))
        )
        await c.execute("SET LOCAL enable_indexscan = on")
        read = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'tasks'"
        before = await c.fetchval(read)
        await sessions.create_session(c, session_id, None, {})
        conversation = ImportedConversation.of(read_turns(shown, None))
        await write_conversation(c, session_id, Caller(None, "a"), None, conversation)
        assert await c.fetchval(read) - before < count

"""The search in messages: what is found, by whom, how soon, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from backend.chat.models import Caller, NewMessage, Role, TextPart, ToolCallPart
from backend.chat.store import messages
from backend.chat.store.derived import search
from backend.errors import SearchTooBroad
from backend.ids import UserId, new_session_id
from backend.postgres import Connection, Database
from tests.integration.rows import NOBODY, a_session, a_task, new_user, text_message
from tests.integration.running_api import RunningApi, running_api
from tests.speed import limit


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as running:
        yield running


@pytest.fixture
async def c(c: Connection) -> AsyncIterator[Connection]:
    """A transaction, in which the executor of `api` finds no messages to add."""
    transaction = c.transaction()
    await transaction.start()
    yield c
    await transaction.rollback()


async def results(api: RunningApi, mine: dict[str, str], q: str, **more: int) -> list[dict[str, Any]]:
    answer = await api.http.get("/api/chat/search", params={"q": q, **more}, headers=mine)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


async def found_by(api: RunningApi, mine: dict[str, str], q: str, count: int) -> list[dict[str, Any]]:
    """Waits until a search finds `count` messages: the executor adds them after the turn."""
    async with asyncio.timeout(limit(30)):
        while len(found := await results(api, mine, q)) < count:
            await asyncio.sleep(0.1)  # between two looks of a bounded wait
    return found


async def test_messages_are_found_by_their_user_alone(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, "/say The Kingfisher nests in a riverbank", mine)
    answer, question = await found_by(api, mine, "kingfish RIVER", 2)
    assert {answer["role"], question["role"]} == {"user", "assistant"}
    for one in (answer, question):
        assert one["session_id"] == session
        assert one["on_current_branch"]
        assert [piece["text"] for piece in one["snippet"] if piece["match"]] == ["Kingfisher", "riverbank"]
    shown = (await api.session(session, mine, format="ui"))["messages"]
    assert {one["id"] for one in shown} == {answer["message_id"], question["message_id"]}
    assert await results(api, mine, '"nests in"')
    assert not await results(api, mine, '"in nests"')
    assert not await results(api, mine, "kingfisher ocean")
    assert not await results(api, mine, "'; & | ! \\ :*")
    assert len(await results(api, mine, "kingfisher", limit=1)) == 1
    assert len(await results(api, mine, "kingfisher", offset=1)) == 1
    assert await results(api, api.as_user(), "kingfisher") == []
    assert not await results(api, mine, "user"), "no word of an entry but those of its message is found"
    assert await results(api, {}, "kingfisher") == []


async def test_a_session_that_a_user_takes_over_is_found_and_a_deleted_one_is_not(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session()
    await api.say(session, "/say the heron waits")
    assert (await api.http.patch(f"/api/chat/sessions/{session}/assign-user", headers=mine)).status_code == 200
    await found_by(api, mine, "heron", 2)
    assert (await api.http.delete(f"/api/chat/sessions/{session}", headers=mine)).status_code < 300
    assert await results(api, mine, "heron") == []


async def test_an_edited_question_is_found_as_another_version(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    await api.say(session, "/say osprey", mine)
    await api.say(session, "/say goshawk", mine, parent="")
    await found_by(api, mine, "goshawk", 2)
    assert [one["on_current_branch"] for one in await found_by(api, mine, "osprey", 2)] == [False, False]


@pytest.mark.parametrize("params", [{}, {"q": ""}, {"q": "x" * 201}, {"q": "a", "limit": 51}, {"q": "a", "offset": -1}])
async def test_a_wrong_search_is_refused(api: RunningApi, params: dict[str, Any]) -> None:
    answer = await api.http.get("/api/chat/search", params=params, headers=api.as_user())
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")


async def _store(c: Connection, caller: Caller, new: list[NewMessage]) -> search.Unsearched:
    session = await a_session(c, caller)
    task = await a_task(c, session, caller)
    await messages.append_messages(c, session, task.id, 0, new)
    return search.Unsearched(session, caller.user_id, 0)


async def test_entries_are_added_once_in_batches_and_know_texts_only(c: Connection) -> None:
    caller = new_user()
    call = ToolCallPart("call", "kestrel", {"q": "kestrel"})
    new = [text_message(f"kestrel {n}", Role.USER if n % 2 else Role.ASSISTANT) for n in range(4)]
    one = await _store(c, caller, [*new, NewMessage(Role.ASSISTANT, (call,)), text_message("kestrel", Role.TOOL)])
    assert one in await search.unsearched_sessions(c, 100_000)
    assert await search.add_entries(c, [one], 4) == 4
    assert await search.add_entries(c, [one], 4) == 0, "another executor was quicker"
    rest = search.Unsearched(one.session_id, one.user_id, 4)
    assert await search.add_entries(c, [rest], 4) == 2
    assert one.session_id not in {left.session_id for left in await search.unsearched_sessions(c, 100_000)}
    assert caller.user_id is not None
    found = await search.find_messages(c, caller.user_id, "kestrel", limit=50, offset=0)
    assert sorted(hit.message.sequence for hit in found) == [1, 2, 3, 4]


async def test_entries_of_several_sessions_are_added_together(c: Connection) -> None:
    some = [await _store(c, new_user(), [text_message(f"grebe {n}"), text_message("x")]) for n in range(3)]
    nobodys = await _store(c, NOBODY, [text_message("grebe")])
    gone = search.Unsearched(new_session_id(), some[0].user_id, 0)
    quicker = replace(some[1], searched=1)
    assert await search.add_entries(c, [some[0], quicker, nobodys, some[2], gone], 10) == 4
    left = await search.unsearched_sessions(c, 100_000)
    assert [one in left for one in some] == [False, True, False]
    for n, one in enumerate(some):
        assert one.user_id is not None
        found = await search.find_messages(c, one.user_id, "grebe", limit=50, offset=0)
        assert len(found) == (n != 1)
    assert await search.add_entries(c, some, 1) == 1, "the one that was left, and one message of it"


async def test_a_session_that_a_turn_has_locked_is_left_for_the_next_sweep(database: Database) -> None:
    async with database.transaction() as c:
        one = await _store(c, new_user(), [text_message("a dotterel")])
        await c.execute("UPDATE sessions SET unsearched_since = NULL WHERE id = $1", one.session_id)  # ours alone
    async with database.transaction() as turn, database.connection() as c:
        await turn.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", one.session_id)
        assert await search.add_entries(c, [one], 10) == 0
    async with database.connection() as c:
        assert await search.add_entries(c, [one], 10) == 1


async def test_messages_of_an_older_version_are_found_later(c: Connection) -> None:
    one, nobodys = await _store(c, new_user(), [text_message("a knot")]), await _store(c, NOBODY, [text_message("x")])
    await c.execute("UPDATE sessions SET unsearched_since = NULL WHERE id = $1", one.session_id)  # as it leaves them
    assert one not in await search.unsearched_sessions(c, 100_000)
    await search.mark_missed_sessions(c, 100_000)
    assert one in await search.unsearched_sessions(c, 100_000)
    assert nobodys not in await search.unsearched_sessions(c, 100_000)
    assert await search.add_entries(c, [one], 10) == 1
    await search.mark_missed_sessions(c, 100_000)
    assert one.session_id not in {left.session_id for left in await search.unsearched_sessions(c, 100_000)}


async def test_messages_that_nobody_can_search_do_not_stay_in_the_list(c: Connection) -> None:
    one = await _store(c, NOBODY, [text_message("an anonymous plover")])
    await c.execute("UPDATE sessions SET unsearched_since = now() WHERE id = $1", one.session_id)  # as migrated
    assert one in await search.unsearched_sessions(c, 100_000)
    await search.add_entries(c, [one], 10)
    assert one not in await search.unsearched_sessions(c, 100_000)


async def test_long_messages_are_added_a_few_at_a_time(c: Connection) -> None:
    long = "dunnock " * 20_000
    one = await _store(c, new_user(), [*[text_message(long)] * 5, text_message(long, Role.TOOL)])
    assert await search.add_entries(c, [one], 10) == 4, "as many as have half a megabyte"
    rest = search.Unsearched(one.session_id, one.user_id, 4)
    assert await search.add_entries(c, [rest], 10) == 2
    assert one.session_id not in {left.session_id for left in await search.unsearched_sessions(c, 100_000)}


@pytest.mark.parametrize("text", ["ﷺ" * 100_000, "x" * 100_000, " ".join(f"{n:x}" for n in range(100_000)), "\ud800\0"])
async def test_no_text_stops_the_search_from_learning(c: Connection, text: str) -> None:
    one = await _store(c, new_user(), [text_message(text)])
    assert await search.add_entries(c, [one], 10) == 1


async def test_words_that_postgres_refuses_stop_no_others(c: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await _store(c, new_user(), [text_message("x")])
    monkeypatch.setattr(search, "vector_of", lambda *_: " ".join(f"{n:0100d}" for n in range(20_000)))
    assert await search.add_entries(c, [one], 10) == 1
    assert one.session_id not in {left.session_id for left in await search.unsearched_sessions(c, 100_000)}
    pooled = await _store(c, new_user(), [text_message("x")])
    others = [await _store(c, new_user(), [text_message("y")]) for _ in range(2)]
    assert await search.add_entries(c, others, 10) == 2
    async with c.transaction():  # as over a pooler
        assert await search.add_entries(c, [pooled], 10) == 1


async def test_the_index_has_the_words_of_each_user_apart(c: Connection) -> None:
    stored = []
    for _ in range(2):
        one = await _store(c, new_user(), [text_message("a whimbrel, a whimbrel")])
        assert one.user_id is not None
        await search.add_entries(c, [one], 10)
        found = await search.find_messages(c, one.user_id, "w", limit=50, offset=0)
        assert [hit.message.session_id for hit in found] == [one.session_id]
        words = "SELECT tsvector_to_array(words) FROM search_entries WHERE session_id = $1"
        stored.append(await c.fetchval(words, one.session_id))
    for mine, other in (stored, stored[::-1]):
        assert {word[8:] for word in mine} == {"a", "whimbrel"}
        assert not set(mine) & set(other)


async def test_a_search_that_takes_too_long_is_refused(c: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_FIND", "SELECT pg_sleep(60), $1::text, $2::text, $3::int, $4::int")
    monkeypatch.setattr(search, "TIME_LIMIT_MS", 50)
    with pytest.raises(SearchTooBroad):
        async with c.transaction():
            await search.find_messages(c, UserId("u"), "anything", limit=1, offset=0)


def test_a_text_that_is_found_is_what_the_user_sees() -> None:
    assert search.text_of((TextPart("a"), ToolCallPart("c", "t", {}), TextPart("b"))) == "a\nb"

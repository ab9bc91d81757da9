from __future__ import annotations

import pytest

from backend.chat.models import Session
from backend.chat.store import messages, sessions, tasks
from backend.errors import SessionNotFound, TaskNotFound
from backend.ids import new_session_id
from backend.postgres import Connection, Database
from tests.integration.rows import NOBODY, a_session, a_task, new_user, text_message


async def test_a_session_is_read_as_it_was_written(c: Connection) -> None:
    user = new_user()
    metadata = {"theme": "dark", "n": [1, 2.5, None, {"ü": "\u2028"}]}
    created = await sessions.create_session(c, new_session_id(), user.user_id, metadata)
    assert created.is_new
    written = created.session
    read = await sessions.get_session(c, written.id, user)
    assert read == written == Session(written.id, user.user_id, None, metadata, written.created_at, written.updated_at)
    assert read.created_at.tzinfo is not None


async def test_creating_a_session_again_returns_the_same_one(c: Connection) -> None:
    user = new_user()
    first = (await sessions.create_session(c, new_session_id(), user.user_id, {"a": 1})).session
    again = await sessions.create_session(c, first.id, user.user_id, {"a": 2})
    assert (again.session, again.is_new) == (first, False)


async def test_the_session_id_of_another_user_is_not_found(c: Connection) -> None:
    session_id = await a_session(c, new_user())
    for other in (new_user(), NOBODY):
        with pytest.raises(SessionNotFound):
            await sessions.create_session(c, session_id, other.user_id, {})


@pytest.mark.parametrize("lock", [False, True])
async def test_a_users_session_is_found_only_by_its_user(c: Connection, lock: bool) -> None:
    owner = new_user()
    session_id = await a_session(c, owner)
    assert (await sessions.get_session(c, session_id, owner, lock=lock)).id == session_id
    for other in (new_user(), NOBODY):
        with pytest.raises(SessionNotFound):
            await sessions.get_session(c, session_id, other, lock=lock)


async def test_an_anonymous_session_is_found_by_anyone_with_its_id(c: Connection) -> None:
    session_id = await a_session(c, NOBODY)
    for caller in (NOBODY, new_user()):
        assert (await sessions.get_session(c, session_id, caller)).user_id is None


async def test_an_unknown_session_is_not_found(c: Connection) -> None:
    with pytest.raises(SessionNotFound):
        await sessions.get_session(c, new_session_id(), NOBODY)
    assert not await sessions.lock_session(c, new_session_id())


async def test_a_session_stays_locked_until_the_transaction_ends(database: Database, c: Connection) -> None:
    session_id = await a_session(c)
    async with database.transaction() as holder:
        assert await sessions.lock_session(holder, session_id)
        statement = "SELECT 1 FROM sessions WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
        assert await c.fetchval(statement, session_id) is None
    assert await c.fetchval(statement, session_id) == 1


async def test_sessions_are_listed_in_pages_with_the_newest_first(c: Connection) -> None:
    user = new_user()
    made = [await a_session(c, user) for _ in range(5)]
    await a_session(c, new_user())
    await sessions.touch_session(c, made[1])
    assert user.user_id is not None
    page, total = await sessions.list_sessions(c, user.user_id, limit=3, offset=0, query=None)
    assert [session.id for session in page] == [made[1], made[4], made[3]]
    rest, _ = await sessions.list_sessions(c, user.user_id, limit=3, offset=3, query=None)
    assert [session.id for session in rest] == [made[2], made[0]]
    assert total == 5
    assert await sessions.list_sessions(c, user.user_id, limit=3, offset=99, query=None) == ([], 5)


@pytest.mark.parametrize("query", ["100%", "a_b", "c\\d", "CAFÉ"])
async def test_a_title_is_searched_literally_and_ignoring_case(c: Connection, query: str) -> None:
    user = new_user()
    titles = ["about 100% of it", "the a_b of it", "path c\\d", "at the café", "100 things", "axb", "cd"]
    for title in titles:
        await sessions.set_title(c, await a_session(c, user), title)
    assert user.user_id is not None
    found, total = await sessions.list_sessions(c, user.user_id, limit=10, offset=0, query=query)
    assert total == 1
    assert query.lower() in (found[0].title or "").lower()


async def test_an_existing_title_is_kept_if_only_untitled_sessions_may_change(c: Connection) -> None:
    session_id = await a_session(c)
    assert await sessions.set_title(c, session_id, "first", only_if_untitled=True)
    assert not await sessions.set_title(c, session_id, "second", only_if_untitled=True)
    assert (await sessions.get_session(c, session_id, NOBODY)).title == "first"
    assert await sessions.set_title(c, session_id, "third")
    assert (await sessions.get_session(c, session_id, NOBODY)).title == "third"
    assert not await sessions.set_title(c, new_session_id(), "fourth")


async def test_an_anonymous_session_and_its_tasks_become_a_users(c: Connection) -> None:
    user, other = new_user(), new_user()
    session_id = await a_session(c)
    task = await a_task(c, session_id)
    assert user.user_id is not None
    assert other.user_id is not None
    await sessions.assign_user(c, session_id, user.user_id)
    await sessions.assign_user(c, session_id, user.user_id)
    assert (await sessions.get_session(c, session_id, user)).user_id == user.user_id
    assert (await tasks.get_task(c, task.id, user)).user_id == user.user_id
    with pytest.raises(SessionNotFound):
        await sessions.assign_user(c, session_id, other.user_id)
    with pytest.raises(SessionNotFound):
        await sessions.assign_user(c, new_session_id(), user.user_id)
    with pytest.raises(TaskNotFound):
        await tasks.get_task(c, task.id, NOBODY)


async def test_a_session_is_deleted_with_its_tasks_and_messages(database: Database, c: Connection) -> None:
    session_id, kept = await a_session(c), await a_session(c)
    made = [await a_task(c, session_id, active=active) for active in (True, False)]
    other = await a_task(c, kept)
    for session, task in ((session_id, made[0]), (kept, other)):
        await messages.append_messages(c, session, task.id, 0, [text_message("hello")])
    async with database.transaction() as deleting:
        await sessions.lock_session(deleting, session_id)
        assert await sessions.delete_session(deleting, session_id) == [task.id for task in made]
    with pytest.raises(SessionNotFound):
        await sessions.get_session(c, session_id, NOBODY)
    assert await tasks.find_tasks(c, [task.id for task in made]) == []
    assert await messages.messages_of_task(c, made[0].id) == []
    assert len(await messages.messages_of_task(c, other.id)) == 1
    assert await sessions.delete_session(c, session_id) == []


async def test_a_session_that_a_user_begins_while_being_forgotten_stays_whole(
    database: Database, c: Connection
) -> None:
    user = new_user()
    assert user.user_id is not None
    begun = await a_task(c, await a_session(c, user), user)
    anonymous = await a_task(c, await a_session(c), user)
    async with database.transaction() as forgetting:
        await sessions.forget_user(forgetting, user.user_id)
    assert (await tasks.get_task(c, begun.id)).user_id == user.user_id
    assert (await tasks.get_task(c, anonymous.id)).user_id is None

from __future__ import annotations

import pytest

from backend.chat import messages, sessions, tasks
from backend.chat.models import Session
from backend.errors import SessionNotFound, TaskNotFound
from backend.ids import new_session_id
from backend.postgres import Connection, Database
from tests.integration.rows import NOBODY, a_session, a_task, new_user, said


async def test_a_session_is_read_as_it_was_written(c: Connection) -> None:
    user = new_user()
    metadata = {"theme": "dark", "n": [1, 2.5, None, {"ü": "\u2028"}]}
    written, created = await sessions.create_session(c, new_session_id(), user.user_id, metadata)
    assert created
    read = await sessions.get_session(c, written.id, user)
    assert read == written == Session(written.id, user.user_id, None, metadata, written.created_at, written.updated_at)
    assert read.created_at.tzinfo is not None


async def test_making_a_session_again_gives_the_same_one(c: Connection) -> None:
    user = new_user()
    first, _ = await sessions.create_session(c, new_session_id(), user.user_id, {"a": 1})
    assert await sessions.create_session(c, first.id, user.user_id, {"a": 2}) == (first, False)


async def test_an_id_that_another_user_took_is_not_found(c: Connection) -> None:
    session_id = await a_session(c, new_user())
    for other in (new_user(), NOBODY):
        with pytest.raises(SessionNotFound):
            await sessions.create_session(c, session_id, other.user_id, {})


@pytest.mark.parametrize("lock", [False, True])
async def test_only_its_owner_reaches_a_users_session(c: Connection, lock: bool) -> None:
    owner = new_user()
    session_id = await a_session(c, owner)
    assert (await sessions.get_session(c, session_id, owner, lock=lock)).id == session_id
    for other in (new_user(), NOBODY):
        with pytest.raises(SessionNotFound):
            await sessions.get_session(c, session_id, other, lock=lock)


async def test_anyone_who_knows_its_id_reaches_an_anonymous_session(c: Connection) -> None:
    session_id = await a_session(c, NOBODY)
    for caller in (NOBODY, new_user()):
        assert (await sessions.get_session(c, session_id, caller)).user_id is None


async def test_a_session_that_never_was_is_not_found(c: Connection) -> None:
    with pytest.raises(SessionNotFound):
        await sessions.get_session(c, new_session_id(), NOBODY)
    assert not await sessions.lock_session(c, new_session_id())


async def test_a_locked_session_is_nobody_elses_until_the_transaction_ends(database: Database, c: Connection) -> None:
    session_id = await a_session(c)
    async with database.transaction() as holder:
        assert await sessions.lock_session(holder, session_id)
        statement = "SELECT 1 FROM sessions WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
        assert await c.fetchval(statement, session_id) is None
    assert await c.fetchval(statement, session_id) == 1


async def test_sessions_are_listed_newest_first_in_pages(c: Connection) -> None:
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
async def test_a_title_is_searched_literally_and_in_either_case(c: Connection, query: str) -> None:
    user = new_user()
    titles = ["about 100% of it", "the a_b of it", "path c\\d", "at the café", "100 things", "axb", "cd"]
    for title in titles:
        await sessions.set_title(c, await a_session(c, user), title)
    assert user.user_id is not None
    found, total = await sessions.list_sessions(c, user.user_id, limit=10, offset=0, query=query)
    assert total == 1
    assert query.lower() in (found[0].title or "").lower()


async def test_a_title_that_stands_is_kept_when_asked_so(c: Connection) -> None:
    session_id = await a_session(c)
    assert await sessions.set_title(c, session_id, "first", only_if_untitled=True)
    assert not await sessions.set_title(c, session_id, "second", only_if_untitled=True)
    assert (await sessions.get_session(c, session_id, NOBODY)).title == "first"
    assert await sessions.set_title(c, session_id, "third")
    assert (await sessions.get_session(c, session_id, NOBODY)).title == "third"
    assert not await sessions.set_title(c, new_session_id(), "nobody's")


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


async def test_a_deleted_session_takes_all_that_is_its_own_along(database: Database, c: Connection) -> None:
    session_id, kept = await a_session(c), await a_session(c)
    made = [await a_task(c, session_id, active=active) for active in (True, False)]
    other = await a_task(c, kept)
    for session, task in ((session_id, made[0]), (kept, other)):
        await messages.append_messages(c, session, task.id, 0, [said("hello")])
    async with database.transaction() as deleting:
        await sessions.lock_session(deleting, session_id)
        assert await sessions.delete_session(deleting, session_id) == [task.id for task in made]
    with pytest.raises(SessionNotFound):
        await sessions.get_session(c, session_id, NOBODY)
    assert await tasks.find_tasks(c, [task.id for task in made]) == []
    assert await messages.messages_of_task(c, made[0].id) == []
    assert len(await messages.messages_of_task(c, other.id)) == 1
    assert await sessions.delete_session(c, session_id) == []

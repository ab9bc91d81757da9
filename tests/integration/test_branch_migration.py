"""Messages that older versions superseded become branches: by the migration, and for tasks that an older process begins
afterwards.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backend.chat.store import branches
from backend.ids import SessionId
from backend.migrating import FOLDER, migrate
from tests.integration.running_api import running_api
from tests.speed import limit

NEW, INDEXED = "20261130134502_branches", "20261130134503_index_of_branches"
INDEX = "tasks_session_id_parent_sequence_idx"
STRAIGHT = "b-straight-conversation"
SESSION = "a-session-of-an-older-version"
# Two questions; the first is answered again (t3), asked another question (t4), edited (t5), and answered by a failure
# without messages (t6). What a task replaces is superseded by it.
ROWS = [
    # sequence, task, step, role, superseded by
    (1, "t1", 0, "user", "t5"),
    (2, "t1", 1, "assistant", "t3"),
    (3, "t2", 0, "user", "t3"),
    (4, "t2", 1, "assistant", "t3"),
    (5, "t3", 1, "assistant", "t5"),
    (6, "t4", 0, "user", "t5"),
    (7, "t4", 1, "assistant", "t5"),
    (8, "t5", 0, "user", None),
    (9, "t5", 1, "assistant", "t6"),
]
PARENTS = {"t1": 0, "t2": 2, "t3": 1, "t4": 5, "t5": 0, "t6": 8}
WITHOUT_TEXT = ("t3", "t6")


@pytest.fixture
async def older(empty_postgres_dsn: str, tmp_path: Path) -> str:
    """A database of the version before, with one conversation."""
    await migrate(empty_postgres_dsn, migrations_before(NEW, tmp_path))
    return empty_postgres_dsn


def migrations_before(name: str, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(FOLDER, tmp_path / f"before-{name}"))
    for later in [path for path in folder.iterdir() if path.is_dir() and path.name >= name]:
        shutil.rmtree(later)
    return folder


async def connect(dsn: str) -> Any:
    connection = await asyncpg.connect(dsn, timeout=limit(20), command_timeout=limit(30))
    await connection.set_type_codec("jsonb", encoder=str, decoder=str, schema="pg_catalog")
    return connection


async def converse(c: Any, session: str, rows: list[Any] = ROWS) -> None:
    await c.execute("INSERT INTO sessions (id, last_sequence) VALUES ($1, $2)", session, len(rows))
    for n in range(1, 7):
        text = "null" if f"t{n}" in WITHOUT_TEXT else '"x"'
        await c.execute(
            """INSERT INTO tasks (id, session_id, quota_key, status, request, started_at, finished_at)
            VALUES ($1, $2, 'k', $3, $4::text::jsonb, now() + $5::int * interval '10 s',
              now() + $5::int * interval '10 s' + interval '9 s')""",
            f"{session[:2]}{n}", session, "failed" if n == 6 else "completed", f'{{"text": {text}}}', n,
        )  # fmt: skip
    for sequence, task, step, role, superseded in rows:
        await c.execute(
            """INSERT INTO messages (session_id, sequence, task_id, step, part, role, parts, superseded_by, created_at)
            VALUES ($1, $2, $3, $4, 0, $5, '[]', $6, now() + $7::int * interval '10 s' + $4::int * interval '1 s')""",
            session, sequence, session[:2] + task[1:], step, role,
            None if superseded is None else session[:2] + superseded[1:], int(task[1:]),
        )  # fmt: skip


async def is_valid(c: Any) -> bool:
    return bool(await c.fetchval(f"SELECT indisvalid FROM pg_index WHERE indexrelid = '{INDEX}'::regclass"))


async def parents(c: Any, session: str) -> dict[str, int]:
    found = await c.fetch("SELECT id, parent_sequence FROM tasks WHERE session_id = $1", session)
    return {f"t{row['id'][2:]}": row["parent_sequence"] for row in found}


async def test_what_was_superseded_is_on_branches_when_it_is_read(older: str, redis_dsn: str) -> None:
    c = await connect(older)
    await converse(c, SESSION)
    await converse(c, STRAIGHT, [(*row[:4], None) for row in ROWS if row[1] in ("t1", "t2")])
    assert NEW in await migrate(older)
    assert set((await parents(c, SESSION)).values()) == {None}, "the migration rewrites no row"
    async with running_api(older, redis_dsn, executor=False) as api:
        (shown,) = (await api.session(SESSION))["branches"]
        assert (shown["index"], shown["count"]) == (2, 2)
        assert (await api.session(STRAIGHT))["branches"] == []
        assert await parents(c, SESSION) == PARENTS
        async with c.transaction():
            await c.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", SESSION)
            assert (await api.session(SESSION))["branches"] == [shown], "only the first reading writes"
    straight = await parents(c, STRAIGHT)
    assert (straight["t1"], straight["t2"]) == (None, None), "one after the other, by their numbers"
    await c.close(timeout=limit(20))


async def test_writes_go_on_while_the_index_is_built(older: str, tmp_path: Path) -> None:
    """A transaction that has written to the table keeps the index from being finished. Several processes migrate."""
    c, writer = await connect(older), await connect(older)
    await c.execute("INSERT INTO sessions (id, last_sequence) VALUES ($1, 0)", SESSION)
    insert = "INSERT INTO tasks (id, session_id, quota_key, request) VALUES ($1, $2, 'k', '{}')"
    await migrate(older, migrations_before(INDEXED, tmp_path))
    async with c.transaction():
        await c.execute(insert, "t1", SESSION)
        migrations = [asyncio.create_task(migrate(older)) for _ in range(2)]
        async with asyncio.timeout(limit(20)):
            while not await writer.fetchval("SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1)", INDEX):
                await asyncio.sleep(0.02)
        await writer.execute(insert, "t2", SESSION)
        assert not any(one.done() for one in migrations)
    await asyncio.gather(*migrations)
    assert await is_valid(c)
    for one in (c, writer):
        await one.close(timeout=limit(20))


async def test_an_index_that_was_left_half_built_is_built_again(older: str, tmp_path: Path) -> None:
    await migrate(older, migrations_before(INDEXED, tmp_path))
    c = await connect(older)
    await c.execute(f"CREATE INDEX {INDEX} ON tasks (session_id, parent_sequence)")
    await c.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}'::regclass")
    await migrate(older)
    assert await is_valid(c)
    await c.close(timeout=limit(20))


async def test_tasks_that_an_older_process_began_get_their_parents_later(older: str) -> None:
    await migrate(older)
    c = await connect(older)
    await converse(c, SESSION)
    async with c.transaction():
        await branches.adopt(c, SessionId(SESSION))
    assert await parents(c, SESSION) == PARENTS
    async with c.transaction():
        first = await branches.newest_below(c, SessionId(SESSION), 1)
        assert first == 7, "the newest that followed the first question"
        assert await branches.make_current(c, SessionId(SESSION), first, "a-t4")  # type: ignore[arg-type]
    shown = await c.fetch("SELECT sequence FROM messages WHERE superseded_by IS NULL ORDER BY sequence")
    assert [row["sequence"] for row in shown] == [1, 5, 6, 7]
    await c.close(timeout=limit(20))

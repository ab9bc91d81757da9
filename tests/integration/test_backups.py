"""`python -m backend backup` and `restore` of the embedded PostgreSQL, as real processes."""

from __future__ import annotations

import stat
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backend.chat.store import sessions
from backend.config import load_settings
from backend.embedded import embedded_servers
from backend.errors import ConfigError
from backend.ids import SessionId
from backend.migrating import migrate
from backend.operating.backup import back_up, restore
from backend.postgres import Database
from tests.integration.operating import run


@asynccontextmanager
async def running(data: Path) -> AsyncIterator[Database]:
    async with embedded_servers(data) as servers:
        await migrate(servers.postgres_dsn)
        async with Database.open(servers.postgres_dsn, size=2) as database:
            yield database


async def add(database: Database, *names: str) -> None:
    async with database.connection() as c:
        for name in names:
            await sessions.create_session(c, SessionId(name), None, {})


async def names_in(data: Path) -> set[str]:
    async with running(data) as database, database.connection() as c:
        return {row["id"] for row in await c.fetch("SELECT id FROM sessions")}


async def test_a_backup_of_a_running_instance_is_restored(data: Path, tmp_path: Path) -> None:
    file, settings = tmp_path / "one.backup", {"DATA_DIR": str(data)}
    async with running(data) as database:
        await add(database, "kept")
        (data / "notes.txt").write_text("mine")
        stored = data / "files" / "copilot-files" / "one"
        stored.parent.mkdir(parents=True)
        stored.write_bytes(b"of a user")
        made = await run(tmp_path, None, "backup", str(file), **settings)
        assert made.code == 0, made.errors
        doctor = await run(tmp_path, None, "doctor", "--json", **settings)
        assert "CHAT_INTERNAL_API_KEY" not in doctor.text, "a running `up` has made one"
        first = file.read_bytes()
        twice = await run(tmp_path, None, "backup", str(file), **settings)
        assert (twice.code, "add --force" in twice.errors) == (1, True)
        assert file.read_bytes() == first
        forced = await run(tmp_path, None, "backup", str(file), "--force", **settings)
        assert forced.code == 0, forced.errors
        await add(database, "later")
        busy = await run(tmp_path, None, "restore", str(file), "--yes", **settings)
        assert (busy.code, "in use" in busy.errors) == (1, True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (data / "notes.txt").unlink()
    stored.unlink()
    unsure = await run(tmp_path, None, "restore", str(file), **settings)
    assert (unsure.code, "--yes" in unsure.errors) == (1, True)
    assert await names_in(data) == {"kept", "later"}
    done = await run(tmp_path, None, "restore", str(file), "--yes", **settings)
    assert done.code == 0, done.errors
    assert await names_in(data) == {"kept"}
    assert (data / "notes.txt").read_text() == "mine"
    assert stored.read_bytes() == b"of a user"


async def test_a_file_that_is_no_backup_changes_nothing(data: Path, tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(data)}
    async with running(data) as database:
        await add(database, "kept")
    file = tmp_path / "whole.backup"
    made = await run(tmp_path, None, "backup", str(file), **settings)  # it starts the server for itself
    assert made.code == 0, made.errors
    cut = tmp_path / "cut.backup"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    nothing = tmp_path / "nothing.backup"
    nothing.write_text("hello")
    for wrong in (cut, nothing, tmp_path / "missing.backup"):
        said = await run(tmp_path, None, "restore", str(wrong), "--yes", **settings)
        assert said.code == 1, said.text
        assert said.errors.startswith("copilot: "), said.errors
        assert said.errors.count("\n") == 1
    assert await names_in(data) == {"kept"}


async def test_a_backup_whose_migrations_do_not_fit_changes_nothing(data: Path, tmp_path: Path) -> None:
    settings, file = {"DATA_DIR": str(data)}, tmp_path / "other.backup"
    async with running(data) as database:
        await add(database, "kept")
        async with database.connection() as c:
            row = await c.fetchrow("SELECT id, checksum FROM _prisma_migrations LIMIT 1")
            assert row is not None
            await c.execute("UPDATE _prisma_migrations SET checksum = 'other' WHERE id = $1", row["id"])
        made = await run(tmp_path, None, "backup", str(file), **settings)
        assert made.code == 0, made.errors
        async with database.connection() as c:
            await c.execute("UPDATE _prisma_migrations SET checksum = $2 WHERE id = $1", row["id"], row["checksum"])
        await add(database, "later")
    said = await run(tmp_path, None, "restore", str(file), "--yes", **settings)
    assert (said.code, "was changed after it was applied" in said.errors) == (1, True)
    assert await names_in(data) == {"kept", "later"}


class Died(Exception):
    pass


@pytest.mark.parametrize(
    ("word", "count", "left"),
    [("RENAME", 1, {"kept", "later"}), ("RENAME", 2, {"kept", "later"}), ("DROP", 3, {"kept"})],
)
async def test_a_restore_that_dies_leaves_one_of_the_databases(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, count: int, left: set[str]
) -> None:
    file, settings, seen = tmp_path / "one.backup", load_settings(files=(), data_dir=data), Counter[str]()
    async with running(data) as database:
        await add(database, "kept")
        await back_up(settings, file)
        await add(database, "later")
    execute = asyncpg.Connection.execute

    async def dying(self: Any, query: str, *arguments: Any, **options: Any) -> str:
        seen.update(one for one in ("RENAME", "DROP") if f"{one} " in query and "DATABASE " in query)
        if seen[word] == count:
            raise Died
        return await execute(self, query, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "execute", dying)
        with pytest.raises(Died):
            await restore(settings, file)
    assert await names_in(data) == left
    await restore(settings, file)
    async with running(data) as database, database.connection() as c:
        databases = {row["datname"] for row in await c.fetch("SELECT datname FROM pg_database WHERE NOT datistemplate")}
    assert databases == {"postgres", "copilot"}
    assert await names_in(data) == {"kept"}


async def test_a_backup_is_not_written_into_what_it_is_made_of(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    for folder in (data, tmp_path / "link"):
        with pytest.raises(ConfigError, match="is in DATA_DIR"):
            await back_up(load_settings(files=(), data_dir=data), folder / "one.backup")
        assert not list(data.glob("one.backup*"))


async def test_a_backup_follows_no_link_and_keeps_no_mode(data: Path, tmp_path: Path) -> None:
    file, other, part = tmp_path / "one.backup", tmp_path / "other", tmp_path / "one.backup.part"
    other.write_text("another's")
    other.chmod(0o644)
    part.symlink_to(other)
    await back_up(load_settings(files=(), data_dir=data), file)
    assert (other.read_text(), file.is_symlink(), part.is_symlink()) == ("another's", False, False)
    part.write_text("open to all")
    part.chmod(0o644)
    await back_up(load_settings(files=(), data_dir=data), file, replace=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_restore_says_that_python_is_too_old(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(ConfigError, match=r"3\.11\.4"):
        await restore(load_settings(files=(), data_dir=data), tmp_path / "one.backup")


async def test_a_database_of_its_own_server_is_left_to_the_servers_tools(tmp_path: Path) -> None:
    said = await run(tmp_path, None, "backup", "x.backup", DATABASE_URL="postgresql://elsewhere/x")
    assert (said.code, "pg_dump" in said.errors) == (1, True)
    assert not (tmp_path / "x.backup").exists()

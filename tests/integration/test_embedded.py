"""Tests of the embedded PostgreSQL and Valkey, which keep their data and never outlive their parent process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from backend.embedded import embedded_servers
from backend.embedded.children import tied_to_parent
from backend.errors import ConfigError
from tests.servers.starting import OutputFile, first_line
from tests.speed import limit

WITHIN = limit(60)
NOBODY = 65534
as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="other users can be tested only as root")


@asynccontextmanager
async def holder(folder: Path, *options: str, identity: str = "same") -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """Starts another process that runs the servers of `folder`. Yields it and its report."""
    command: list[str | Path] = [sys.executable, "-m", "tests.servers.hold_embedded", folder, *options]
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *tied_to_parent(command, death_signal=signal.SIGKILL, identity=identity),
            stdin=PIPE,
            stdout=PIPE,
            stderr=output_file,
        )
        assert process.stdin is not None
        try:
            yield process, json.loads(await first_line(process, "the holder", output_file.tail))
        finally:
            process.stdin.close()
            async with asyncio.timeout(WITHIN):
                await process.communicate()


def processes_in(folder: Path) -> dict[int, str]:
    """Returns the command lines of other processes that work in `folder` or name it, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            home = str((entry / "cwd").readlink())
        except OSError:
            continue
        if home.startswith(str(folder)) or str(folder) in command:
            found[int(entry.name)] = command
    return found


async def wait_until_no_process_in(folder: Path) -> None:
    async with asyncio.timeout(limit(20)):
        while processes_in(folder):
            await asyncio.sleep(0.02)


async def store(report: dict[str, Any], value: str) -> None:
    connection = await asyncpg.connect(report["postgres"], timeout=limit(20))
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()
    async with redis.asyncio.Redis.from_url(report["redis"]) as client:
        await client.rpush("kept", value)


async def stored(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    connection = await asyncpg.connect(report["postgres"], timeout=limit(20))
    rows = await connection.fetch("SELECT value FROM kept")
    await connection.close()
    async with redis.asyncio.Redis.from_url(report["redis"], decode_responses=True) as client:
        return [row["value"] for row in rows], [str(value) for value in await client.lrange("kept", 0, -1)]


async def test_the_servers_keep_their_data_over_a_clean_restart(short_path: Path) -> None:
    for count in range(1, 3):
        async with embedded_servers(short_path / "data") as servers:
            report = {"postgres": servers.postgres_dsn, "redis": servers.redis_dsn}
            await store(report, str(count))
            assert await stored(report) == (["1", "2"][:count], ["1", "2"][:count])
        assert processes_in(short_path) == {}


async def test_the_servers_listen_on_private_unix_sockets_only(data: Path) -> None:
    async with embedded_servers(data) as servers:
        connection = await asyncpg.connect(servers.postgres_dsn, timeout=limit(20))
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        assert await connection.fetchval("SHOW fsync") == "on"
        await connection.close()
        async with redis.asyncio.Redis.from_url(servers.redis_dsn, decode_responses=True) as client:
            settings = await client.config_get("port", "appendonly", "maxmemory-policy")
        assert settings == {"port": "0", "appendonly": "yes", "maxmemory-policy": "noeviction"}
        assert stat.S_IMODE((data / "run").stat().st_mode) == 0o700


async def test_what_is_written_can_be_read_by_nobody_else(short_path: Path) -> None:
    root = short_path / "new" / "data"
    async with embedded_servers(root, postgres=False):
        folders = [root, root / "logs", root / "valkey", root / "run"]
        assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folders} == {
            path.name: "0o700" for path in folders
        }
        files = [path for path in (*root.glob("*"), *root.glob("logs/*")) if path.is_file()]
        assert {path.name for path in files} == {"lock", "lock.servers", "valkey.log"}
        assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {"0o600"}


async def test_one_server_can_be_started_without_the_other(short_path: Path) -> None:
    async with embedded_servers(short_path / "data", postgres=False) as servers:
        assert servers.postgres_dsn == ""
        assert [child.name for child in servers.children] == ["Valkey"]


async def test_kill_9_of_the_parent_leaves_no_process_behind_and_loses_no_data(data: Path) -> None:
    async with holder(data) as (process, report):
        await store(report, "before the kill")
        busy = await asyncpg.connect(report["postgres"], timeout=limit(20))
        asleep = await asyncpg.connect(report["postgres"], timeout=limit(20))
        jobs = [
            asyncio.create_task(busy.execute("SELECT count(*) FROM generate_series(1, 1000000000000)")),
            asyncio.create_task(asleep.execute("SELECT pg_sleep(1000)")),
        ]
        await asyncio.wait(jobs, timeout=0.1)
        process.kill()
        await wait_until_no_process_in(data)
        await asyncio.gather(*jobs, return_exceptions=True)
    async with embedded_servers(data) as servers:
        again = {"postgres": servers.postgres_dsn, "redis": servers.redis_dsn}
        assert await stored(again) == (["before the kill"], ["before the kill"])


async def test_the_next_start_waits_for_the_servers_of_a_killed_parent(data: Path) -> None:
    for count in range(1, 4):
        async with holder(data) as (process, report):
            await store(report, str(count))
            assert len((await stored(report))[0]) == count
            process.kill()


async def test_a_killed_server_takes_its_children_along_and_its_pid_may_be_reused(data: Path) -> None:
    async with holder(data) as (process, report):
        await store(report, "kept")
        os.kill(report["pids"]["PostgreSQL"], signal.SIGKILL)
        os.kill(report["pids"]["Valkey"], signal.SIGKILL)
        process.kill()
    await wait_until_no_process_in(data)
    left = data / "postgres" / "postmaster.pid"
    left.write_text(left.read_text().replace(str(report["pids"]["PostgreSQL"]), str(os.getpid()), 1))
    async with embedded_servers(data) as servers:
        again = {"postgres": servers.postgres_dsn, "redis": servers.redis_dsn}
        assert await stored(again) == (["kept"], ["kept"])


async def test_a_second_instance_on_the_same_folder_is_refused(data: Path) -> None:
    async with holder(data) as (_, report):
        with pytest.raises(ConfigError, match=r"DATA_DIR: .* is in use by another running instance"):
            async with embedded_servers(data):
                pytest.fail("two instances on one folder")
        await store(report, "the first one continues")


async def test_an_interrupted_first_start_is_repeated(short_path: Path) -> None:
    command = (sys.executable, "-m", "tests.servers.hold_embedded", short_path / "data")
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    async with asyncio.timeout(WITHIN):
        while not (short_path / "data" / "postgres.new" / "base").exists():
            await asyncio.sleep(0.02)
        process.kill()
        await process.communicate()
    await wait_until_no_process_in(short_path)
    assert not (short_path / "data" / "postgres").exists()
    async with embedded_servers(short_path / "data", redis=False) as servers:
        connection = await asyncpg.connect(servers.postgres_dsn, timeout=limit(20))
        await connection.close()
        assert not (short_path / "data" / "postgres.new").exists()


@pytest.mark.parametrize("name", ["x" * 120, "with space, comma and 'quote'", "ünï"])
async def test_the_data_may_have_any_path(data: Path, short_path: Path, name: str) -> None:
    (short_path / name).mkdir()
    folder = Path(shutil.move(data, short_path / name / "data"))
    async with holder(folder) as (process, report):
        await store(report, "kept")
        process.kill()
    private = (folder / "run").readlink()
    async with embedded_servers(folder) as servers:
        assert not private.exists()
        again = {"postgres": servers.postgres_dsn, "redis": servers.redis_dsn}
        assert await stored(again) == (["kept"], ["kept"])
    assert not os.path.lexists(folder / "run")


async def test_a_folder_that_cannot_be_created_is_a_config_error(short_path: Path) -> None:
    (short_path / "file").write_text("")
    with pytest.raises(ConfigError, match="DATA_DIR: cannot use"):
        async with embedded_servers(short_path / "file" / "data"):
            pytest.fail("there is no folder")


@as_root_only
async def test_as_root_the_modes_of_parent_folders_do_not_change(short_path: Path) -> None:
    (short_path / "closed").mkdir(mode=0o700)
    async with embedded_servers(short_path / "closed" / "data") as servers:
        assert all(child.pid for child in servers.children)
    assert stat.S_IMODE((short_path / "closed").stat().st_mode) == 0o700


@as_root_only
async def test_as_root_without_namespaces_a_system_user_runs_postgres(short_path: Path) -> None:
    (short_path / "closed").mkdir(mode=0o700)
    folder = short_path / "closed" / "data"
    async with holder(folder, "without-namespaces") as (process, report):
        assert report["identities"]["PostgreSQL"].startswith("user:")
        await store(report, "kept")
        process.kill()
        await wait_until_no_process_in(folder)
    async with holder(folder) as (_, report):
        assert report["identities"]["PostgreSQL"].startswith("map:")
        assert await stored(report) == (["kept"], ["kept"])
    assert stat.S_IMODE((short_path / "closed").stat().st_mode) == 0o700


@as_root_only
async def test_as_root_in_a_folder_of_another_user_a_system_user_runs_postgres(short_path: Path) -> None:
    closed = short_path / "home"
    closed.mkdir(mode=0o700)
    os.chown(closed, 1234, 1234)
    async with embedded_servers(closed / "data") as servers:
        assert servers.children[1].identity.startswith("user:")
    assert (stat.S_IMODE(closed.stat().st_mode), closed.stat().st_uid) == (0o700, 1234)


@as_root_only
async def test_an_ordinary_user_can_run_the_servers(short_path: Path) -> None:
    home = short_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    async with holder(home / "data", identity=f"user:{NOBODY}:{NOBODY}") as (process, report):
        assert report["identities"]["PostgreSQL"] == "same"
        await store(report, "kept")
        process.kill()
        await wait_until_no_process_in(home)
    async with holder(home / "data", identity=f"user:{NOBODY}:{NOBODY}") as (_, report):
        assert await stored(report) == (["kept"], ["kept"])
        assert (home / "data").stat().st_uid == NOBODY

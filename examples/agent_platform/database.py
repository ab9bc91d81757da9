"""The database of the platform: SQLite, used by one thread of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
Connection = sqlite3.Connection
VERSION = 1
_SCHEMA = """
CREATE TABLE graphs (
    user_id TEXT NOT NULL, graph_id TEXT NOT NULL, version INTEGER NOT NULL, document TEXT NOT NULL,
    webhook TEXT NOT NULL UNIQUE, PRIMARY KEY (user_id, graph_id, version)) STRICT;
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, graph_id TEXT NOT NULL,
    version INTEGER NOT NULL, node_input TEXT NOT NULL, payload TEXT NOT NULL, status TEXT NOT NULL,
    started_at TEXT NOT NULL, ended_at TEXT, output TEXT, error TEXT,
    key TEXT, fingerprint TEXT NOT NULL, operation TEXT, told INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX runs_by_key ON runs (user_id, key) WHERE key IS NOT NULL;
CREATE INDEX runs_by_graph ON runs (user_id, graph_id, number);
CREATE INDEX runs_open ON runs (number) WHERE ended_at IS NULL;
CREATE INDEX runs_to_tell ON runs (number) WHERE told = 0;
CREATE TABLE run_nodes (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, node_id TEXT NOT NULL, status TEXT NOT NULL,
    outputs TEXT NOT NULL DEFAULT '{}', error TEXT, PRIMARY KEY (run_id, node_id)) STRICT;
CREATE TABLE run_files (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, name TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (run_id, name)) STRICT;
CREATE TABLE schedules (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, graph_id TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL,
    cron TEXT NOT NULL, timezone TEXT NOT NULL, node_input TEXT NOT NULL, paused INTEGER NOT NULL DEFAULT 0,
    next_run_at REAL, key TEXT, fingerprint TEXT NOT NULL) STRICT;
CREATE UNIQUE INDEX schedules_by_key ON schedules (user_id, key) WHERE key IS NOT NULL;
CREATE INDEX schedules_due ON schedules (next_run_at) WHERE paused = 0;
CREATE TABLE stored_values (
    user_id TEXT NOT NULL, graph_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (user_id, graph_id, key)) STRICT;
CREATE TABLE calls (
    user_id TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, made_at REAL NOT NULL, answer TEXT,
    PRIMARY KEY (user_id, key)) STRICT;
CREATE INDEX calls_by_time ON calls (made_at);
"""


class FolderInUse(Exception):
    """Another process uses the data folder of the platform."""


class Database:
    """Runs transactions one after another. They are carried out even if the caller is cancelled meanwhile."""

    def __init__(self, connection: Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread

    async def transact(self, act: Callable[[Connection], T]) -> T:
        """Returns what `act` returns. If it raises, nothing is changed. Raises sqlite3.Error."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._transact, act))

    def _transact(self, act: Callable[[Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = act(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has ended it after some errors, like a full disk
                self._connection.execute("ROLLBACK")
            raise
        return result


@asynccontextmanager
async def open_database(folder: Path | None) -> AsyncIterator[Database]:
    """Opens the database in a folder, or one in memory. Raises FolderInUse."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="platform-database")
    loop = asyncio.get_running_loop()
    try:
        with _locked(folder):
            connection = await loop.run_in_executor(thread, _connect, folder)
            try:
                yield Database(connection, thread)
            finally:
                await asyncio.shield(loop.run_in_executor(thread, connection.close))
    finally:
        thread.shutdown(wait=False)


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Holds the lock of the folder, which the kernel takes back when the process dies."""
    if folder is None:
        yield
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FolderInUse(f"another process uses the folder {folder}") from None
        yield
    finally:
        os.close(lock)


def _connect(folder: Path | None) -> Connection:
    path = folder / "platform.sqlite3" if folder is not None else ":memory:"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA}; PRAGMA user_version = {VERSION}; COMMIT;")
    return connection

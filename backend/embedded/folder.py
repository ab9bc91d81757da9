"""The data folder of the embedded servers: who uses it, and where their sockets are."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.errors import ConfigError

_SOCKET_PREFIX = "copilot-"
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
_LOG_LIMIT = 10_000_000
_SERVERS_END_WITHIN = 15.0


@dataclass(frozen=True)
class DataFolder:
    root: Path
    sockets: Path
    lock: int
    """A locked file; servers inherit it, so that it stays locked until the last of their processes is gone."""

    def log_of(self, name: str) -> Path:
        log = self.root / "logs" / f"{name}.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        return log


@asynccontextmanager
async def use_folder(root: Path) -> AsyncIterator[DataFolder]:
    """The folder, made if need be, ours alone. Raises ConfigError when it is unusable, or another instance has it."""
    root = root.expanduser().absolute()  # noqa: ASYNC240  # no disk in it
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / "logs").mkdir(exist_ok=True)
        owner = _open_lock(root / "lock")
    except OSError as error:
        raise ConfigError(f"DATA_DIR: cannot use {root}: {error.strerror}") from None
    try:
        if not _lock(owner):
            raise ConfigError(f"DATA_DIR: {root} is in use by another running instance")
        servers = _open_lock(root / "lock.servers")
        try:
            await _wait_for_servers_of_before(servers, root)
            with _sockets(root) as sockets:
                yield DataFolder(root, sockets, servers)
        finally:
            os.close(servers)
    finally:
        os.close(owner)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait_for_servers_of_before(file: int, root: Path) -> None:
    """After kill -9 of the instance before us its servers need a moment to end."""
    try:
        async with asyncio.timeout(_SERVERS_END_WITHIN):
            while not _lock(file):  # noqa: ASYNC110  # the lock is another process's
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ConfigError(f"DATA_DIR: servers of an instance before still run in {root}") from None


@contextmanager
def _sockets(root: Path) -> Iterator[Path]:
    """A private, empty folder for sockets: `run` in the data folder, or a link to one where sockets can live."""
    run = root / "run"
    _remove(run)
    run.mkdir(mode=0o700)
    if not _can_hold_sockets(run):
        _remove(run)
        run.symlink_to(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir="/tmp"))  # short, and private: mode 0700
    try:
        yield run.readlink() if run.is_symlink() else run
    finally:
        _remove(run)


def _remove(run: Path) -> None:
    if run.is_symlink():
        target = run.readlink()
        if target.name.startswith(_SOCKET_PREFIX) and target.is_dir() and target.stat().st_uid == os.geteuid():
            shutil.rmtree(target, ignore_errors=True)
        run.unlink()
    elif run.exists():
        shutil.rmtree(run)


def _can_hold_sockets(folder: Path) -> bool:
    """False for a path that is too long (107 bytes), needs quotes in settings, or is on a disk without sockets."""
    path = folder / _LONGEST_SOCKET_NAME
    if not all(sign.isalnum() or sign in "/._-+" for sign in str(path)) or not str(path).isascii():
        return False
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True

"""The data folder of the embedded servers, with its locks and the folder for sockets."""

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
_LOG_LIMIT = 10_000_000  # bytes
_SERVERS_END_WITHIN = 15.0  # seconds


@dataclass(frozen=True)
class DataFolder:
    root: Path
    sockets: Path
    lock: int
    """The descriptor of a locked file. The servers inherit it, so it stays locked until their last process ends."""

    def log_of(self, name: str) -> Path:
        """Returns the path of a server's log. First moves a log over 10 MB aside, to `.log.1`."""
        log = self.root / "logs" / f"{name}.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        return log


@asynccontextmanager
async def use_folder(root: Path) -> AsyncIterator[DataFolder]:
    """Creates the folder if needed, for this user alone, and locks it.

    Raises ConfigError if it is unusable or in use by another instance.
    """
    root = root.expanduser().absolute()  # noqa: ASYNC240  # reads no disk
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / "logs").mkdir(mode=0o700, exist_ok=True)
        owner = _open_lock(root / "lock")
    except OSError as error:
        raise ConfigError(f"DATA_DIR: cannot use {root}: {error.strerror}") from None
    try:
        if not _lock(owner):
            raise ConfigError(f"DATA_DIR: {root} is in use by another running instance")
        servers = _open_lock(root / "lock.servers")
        try:
            await _wait_for_previous_servers(servers, root)
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


async def _wait_for_previous_servers(file: int, root: Path) -> None:
    """Waits for the servers of a previous instance, which need a moment to end if it was killed. Raises ConfigError."""
    try:
        async with asyncio.timeout(_SERVERS_END_WITHIN):
            while not _lock(file):  # noqa: ASYNC110  # another process holds the lock
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ConfigError(f"DATA_DIR: servers of a previous instance still run in {root}") from None


@contextmanager
def _sockets(root: Path) -> Iterator[Path]:
    """Gives a private, empty folder for sockets: `run` in the data folder, or one in /tmp if that cannot hold them."""
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
    """Returns False if the path is too long (107 bytes), needs quotes in settings, or its disk has no sockets."""
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

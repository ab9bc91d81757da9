"""A private PgBouncer in transaction mode. `python -m tests.servers.pgbouncer` prints a hint if there is none.

Without it only the tests of poolers are skipped, with a message.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from backend.embedded.children import Child
from tests.servers.debian import can_install, install
from tests.servers.ports import free_port
from tests.servers.proxy import FaultProxy
from tests.servers.starting import listens
from tests.speed import limit

HINT = "PgBouncer is not tested: sudo apt-get install -y pgbouncer"
_NOBODY = 65534  # PgBouncer refuses to run as root


def find_or_install() -> Path | None:
    if _found() is None and can_install():
        install("pgbouncer")
    return _found()


def _found() -> Path | None:
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


@asynccontextmanager
async def pooler(dsn: str, folder: Path, *, size: int = 3) -> AsyncIterator[str]:
    """Starts PgBouncer before the server of a DSN, and yields the DSN through it. Skips the test if there is none."""
    program = find_or_install()
    if program is None:
        pytest.skip(HINT)
    async with FaultProxy.before(dsn) as way:  # it is reached by TCP, wherever its socket is
        port = free_port()
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={way.host} port={way.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
            f"default_pool_size = {size}\nmax_client_conn = 200\nserver_login_retry = 1\n"
        )
        identity = "same"
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
            identity = f"user:{_NOBODY}:{_NOBODY}"

        async def ready() -> bool:
            return await listens(port)

        child = Child(
            "PgBouncer", [program, folder / "pgbouncer.ini"], identity=identity, ready=ready, ready_within=limit(20),
            log=folder / "pgbouncer.log",
        )  # fmt: skip
        try:
            await child.start()
            yield str(URL(way.dsn).with_port(port))
        finally:
            await child.stop()


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

"""Runs the embedded servers until its standard input ends. Tests kill this process to see what happens to its children.

python -m tests.servers.hold_embedded DATA_DIR [without-namespaces]
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import platform
import struct
import sys
from pathlib import Path

from backend.embedded import embedded_servers
from backend.errors import ChildFailedError, ConfigError

_PR_SET_SECCOMP, _FILTER = 22, 2
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_LOAD_SYSCALL_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _DENY_WITH_EPERM = 0x7FFF0000, 0x00050001


def forbid_namespaces() -> None:
    """Makes `unshare` fail with EPERM, as Docker's default seccomp profile does."""
    program = b"".join(
        struct.pack("HBBI", *line)
        for line in (
            (_LOAD_SYSCALL_NUMBER, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 1, _UNSHARE[platform.machine()]),
            (_RETURN, 0, 0, _DENY_WITH_EPERM),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    lines = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", 4, ctypes.addressof(lines))
    assert ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _FILTER, header, 0, 0) == 0


async def hold(folder: Path) -> None:
    async with embedded_servers(folder) as servers:
        report = {
            "postgres": servers.postgres_dsn,
            "redis": servers.redis_dsn,
            "pids": {child.name: child.pid for child in servers.children},
            "identities": {child.name: child.identity for child in servers.children},
        }
        print(json.dumps(report), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    if "without-namespaces" in sys.argv:
        forbid_namespaces()
    try:
        asyncio.run(hold(Path(sys.argv[1])))
    except (ConfigError, ChildFailedError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

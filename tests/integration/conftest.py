"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from backend.postgres import Connection, Database
from tests.own_stores import generator, postgres_dsn, redis_dsn
from tests.servers import ports

__all__ = ["generator", "postgres_dsn", "redis_dsn"]


@pytest.fixture(scope="module")
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    async with Database.open(postgres_dsn, size=10) as database:
        yield database


@pytest.fixture
async def c(database: Database) -> AsyncIterator[Connection]:
    """A connection for one test, on which each statement commits by itself."""
    async with database.connection() as connection:
        yield connection


@pytest.fixture
def free_port() -> int:
    """A port on which no process listens."""
    return ports.free_port()

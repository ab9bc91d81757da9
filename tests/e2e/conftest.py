"""What the end-to-end tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.servers.postgres import migrated_database

over_both_queues = pytest.mark.parametrize("servers", ["rabbitmq", "redis"], indirect=True, scope="module")


@pytest.fixture(scope="session")
async def postgres_dsn(postgres_server_dsn: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_server_dsn) as dsn:
        yield dsn

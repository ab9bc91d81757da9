"""Fixtures with a database, a Redis and an agent generator for the tests of one file. Each folder's conftest imports
them.

Files do not share stores, because an executor runs every turn that it finds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers.generator import GeneratorNode, generator_node
from tests.servers.postgres import copied_database
from tests.servers.redis_cluster import redis_to_test


@pytest.fixture(scope="module")
async def postgres_dsn(migrated_dsn: str) -> AsyncIterator[str]:
    async with copied_database(migrated_dsn) as dsn:
        yield dsn


@pytest.fixture(scope="module")
async def redis_dsn() -> AsyncIterator[str]:
    if dsn := os.environ.get("REDIS_URL"):
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with redis_to_test(Path(folder)) as node:
            yield node.dsn


@pytest.fixture(scope="module")
async def generator(redis_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GeneratorNode]:
    """A generator that is shared by the file's tests. Each test starts its own operations."""
    async with generator_node(tmp_path_factory.mktemp("generator"), redis=redis_dsn) as node:
        yield node

"""What the end-to-end tests share: the servers, the processes over them, and the SDK's clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.sdk import SdkClients, open_sdk_clients
from tests.e2e.stack import Servers, Stack, open_stack


@pytest.fixture(scope="session")
async def sdk_clients() -> AsyncIterator[SdkClients]:
    async with open_sdk_clients() as clients:
        yield clients


@pytest.fixture(scope="module", params=["rabbitmq"])
def servers(request: pytest.FixtureRequest, postgres_dsn: str, redis_dsn: str) -> Servers:
    """Over RabbitMQ; a module that wants the embedded queue too says so with `over_both_queues`."""
    if request.param == "redis":
        return Servers(postgres_dsn, redis_dsn)
    return Servers(postgres_dsn, redis_dsn, request.getfixturevalue("rabbitmq_dsn"))


over_both_queues = pytest.mark.parametrize("servers", ["rabbitmq", "redis"], indirect=True, scope="module")


@pytest.fixture(scope="module")
async def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One API and two executors, shared by a module's tests: each test brings its own users and sessions."""
    folder: Path = tmp_path_factory.mktemp("stack")
    async with open_stack(servers, folder, executors=2) as stack:
        yield stack

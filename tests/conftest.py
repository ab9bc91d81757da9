"""The servers that tests run against, started once a run and only when a test asks for them.

postgres_dsn       a migrated database on DATABASE_URL or else on an embedded PostgreSQL; tests/e2e and tests/browser
                   have their own, as executors take up every turn that a test of a table leaves
empty_postgres_dsn a new, empty database, for one test
redis_dsn          REDIS_URL, or else an embedded Valkey
rabbitmq_dsn       RABBITMQ_URL, or else a private node of an installed rabbitmq-server
private_postgres, private_redis, private_rabbitmq      for tests that kill or freeze a server
generator          the agent generator of examples/, as a process; it tells outcomes by webhook or through redis_dsn
servers            the three together, for processes of ours: stack; sdk_clients: the AI SDK's
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings

from backend.chat import keys
from backend.embedded import EmbeddedServers, embedded_servers
from tests.e2e.sdk import SdkClients, open_sdk_clients
from tests.e2e.stack import Servers, Stack, open_stack
from tests.servers.generator import GeneratorNode, generator_node
from tests.servers.postgres import PostgresNode, empty_database, migrated_database, postgres_node
from tests.servers.rabbitmq import RabbitNode, rabbit_node
from tests.servers.redis import RedisNode, redis_node

settings.register_profile("busy machine", deadline=None)  # it may stand still for longer than any example needs
settings.load_profile("busy machine")

_KEYS_WITHOUT_TTL = frozenset({keys.TURNS, keys.DEAD_TURNS, keys.COMPLETIONS, keys.DEAD_COMPLETIONS})


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new folder with a short path, for what holds sockets."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
async def embedded() -> AsyncIterator[EmbeddedServers]:
    """An embedded PostgreSQL and Valkey, without what the environment names already."""
    wanted = {"postgres": not os.environ.get("DATABASE_URL"), "redis": not os.environ.get("REDIS_URL")}
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with embedded_servers(Path(folder) / "data", **wanted) as servers:
            yield servers


@pytest.fixture(scope="session")
def postgres_server_dsn(request: pytest.FixtureRequest) -> str:
    """A server on which databases can be made; the path names one that exists."""
    if dsn := os.environ.get("DATABASE_URL"):
        return dsn
    servers: EmbeddedServers = request.getfixturevalue("embedded")
    return servers.postgres_dsn


@pytest.fixture(scope="session")
async def postgres_dsn(postgres_server_dsn: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_server_dsn) as dsn:
        yield dsn


@pytest.fixture
async def empty_postgres_dsn(postgres_server_dsn: str) -> AsyncIterator[str]:
    async with empty_database(postgres_server_dsn) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def redis_dsn(request: pytest.FixtureRequest) -> str:
    if dsn := os.environ.get("REDIS_URL"):
        return dsn
    servers: EmbeddedServers = request.getfixturevalue("embedded")
    return servers.redis_dsn


@pytest.fixture(scope="session")
async def rabbitmq_dsn() -> AsyncIterator[str]:
    if dsn := os.environ.get("RABBITMQ_URL"):
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with rabbit_node(Path(folder)) as node:
            yield node.dsn


@pytest.fixture(scope="session")
async def cluster() -> AsyncIterator[Path]:
    """Data of an embedded PostgreSQL that was started once and stopped: a copy of it saves the first start."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with embedded_servers(Path(folder) / "data", redis=False):
            pass
        yield Path(folder) / "data"


@pytest.fixture
def data(cluster: Path, short_path: Path) -> Path:
    """A data folder of an embedded PostgreSQL, stopped, with an empty database."""
    return Path(shutil.copytree(cluster, short_path / "data"))


@pytest.fixture
async def private_postgres(data: Path) -> AsyncIterator[PostgresNode]:
    async with postgres_node(data) as node:
        yield node


@pytest.fixture
async def private_redis(short_path: Path) -> AsyncIterator[RedisNode]:
    async with redis_node(short_path) as node:
        yield node


@pytest.fixture(scope="session")
async def _hurtable_rabbitmq() -> AsyncIterator[RabbitNode]:
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with rabbit_node(Path(folder)) as node:
            yield node


@pytest.fixture
async def private_rabbitmq(_hurtable_rabbitmq: RabbitNode) -> AsyncIterator[RabbitNode]:
    """One node for all tests that hurt it, as booting takes ten seconds; whole again after each, but for queues."""
    yield _hurtable_rabbitmq
    _hurtable_rabbitmq.resume()
    if not _hurtable_rabbitmq.running:
        await _hurtable_rabbitmq.start()


@pytest.fixture(scope="session")
async def generator(redis_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GeneratorNode]:
    """Shared: each test asks under operations of its own."""
    async with generator_node(tmp_path_factory.mktemp("generator"), redis=redis_dsn) as node:
        yield node


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


@pytest.fixture(scope="module")
async def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One API and two executors, shared by a module's tests: each test brings its own users and sessions."""
    folder: Path = tmp_path_factory.mktemp("stack")
    async with open_stack(servers, folder, executors=2) as stack:
        yield stack


@pytest.fixture(autouse=True)
def every_key_has_a_ttl(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a key in Redis that will never go away."""
    if "redis_dsn" not in request.fixturenames:
        yield
        return
    dsn: str = request.getfixturevalue("redis_dsn")
    before = _keys_that_stay(dsn)
    yield
    left = _keys_that_stay(dsn) - before
    assert not left, f"keys without a TTL: {sorted(left)}"


def _keys_that_stay(dsn: str) -> set[str]:
    with redis.Redis.from_url(dsn, decode_responses=True) as client:
        found = set(client.scan_iter(match="chat:*", count=1000)) - _KEYS_WITHOUT_TTL
        return {key for key in found if client.ttl(key) == -1}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """A test that failed shows what the processes logged."""
    report = (yield).get_result()
    values = getattr(item, "funcargs", {}).values()
    for stack in (value for value in values if isinstance(value, Stack)):
        if report.failed:
            report.sections.append(("the processes", stack.logs()))

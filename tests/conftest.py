"""The servers that tests run against, started once a run and only when a test asks for them.

postgres_server_dsn  DATABASE_URL, or else an embedded PostgreSQL; tests.own_stores has what a file's tests use of it
empty_postgres_dsn a new, empty database, for one test
rabbitmq_dsn       RABBITMQ_URL, or else a private node of an installed rabbitmq-server
private_postgres, private_redis, private_rabbitmq      for tests that kill or freeze a server
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
from backend.embedded import embedded_servers
from tests import speed
from tests.e2e.sdk import SdkClients, open_sdk_clients
from tests.e2e.stack import Servers, Stack, open_stack
from tests.faults.figures import FiguresAtTheEnd
from tests.faults.scale import FULL
from tests.reporting import FAILURES, ShortFailures
from tests.servers.nursery import nursery
from tests.servers.postgres import PostgresNode, empty_database, migrated_database, postgres_node
from tests.servers.rabbitmq import RabbitNode, rabbit_node
from tests.servers.redis import RedisNode, redis_node

# a busy machine may stand still for longer than any example needs; a failure says how it is repeated
settings.register_profile("busy machine", deadline=None, print_blob=True)
settings.load_profile("busy machine")

_PER_TEST = 120.0
_LONGEST = (
    "test_interruptions", "test_failpoints", "test_api_schemathesis", "test_mcp_turns", "test_conversations",
    "test_outages", "test_executor_deaths", "test_turn_queue", "test_model", "test_starts_in_outages",
    "test_agents_on_the_page", "test_executor", "test_kill_storm", "test_mcp",
)  # fmt: skip
"""Files that take half a minute and more: they begin first, or one of them would be left alone at the end of a run."""
_KEYS_WITHOUT_TTL = frozenset({keys.TURNS, keys.DEAD_TURNS, keys.COMPLETIONS, keys.DEAD_COMPLETIONS})


def pytest_configure(config: pytest.Config) -> None:
    """Only the process that prints measures and shortens; the workers of xdist take the speed from it."""
    if hasattr(config, "workerinput"):
        return
    workers = getattr(config.option, "numprocesses", None) or 1
    speed.share_cores(workers)
    speed.slowness()  # measured once, and kept for the workers
    config.pluginmanager.register(ShortFailures(FAILURES))
    config.pluginmanager.register(FiguresAtTheEnd())


def pytest_report_header() -> str:
    return f"limits: {speed.limit(1):.1f} times the usual"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, and no test may take longer than two minutes of the usual machine, or what its own
    mark says."""
    items.sort(key=lambda item: _LONGEST.index(item.path.stem) if item.path.stem in _LONGEST else len(_LONGEST))
    for item in items:
        mark = item.get_closest_marker("timeout")
        seconds = float(mark.args[0]) if mark is not None else _PER_TEST
        item.add_marker(pytest.mark.timeout(speed.limit(seconds)), append=False)


@pytest.fixture(scope="session", autouse=True)
async def processes() -> AsyncIterator[None]:
    """Processes of ours are forked from one that has imported everything, except in `make faults`."""
    if FULL:
        yield
        return
    async with nursery():
        yield


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new folder with a short path, for what holds sockets."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
async def postgres_server_dsn() -> AsyncIterator[str]:
    """A server on which databases can be made; the path names one that exists."""
    if dsn := os.environ.get("DATABASE_URL"):
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with embedded_servers(Path(folder) / "data", redis=False) as servers:
            yield servers.postgres_dsn


@pytest.fixture(scope="session")
async def migrated_dsn(postgres_server_dsn: str) -> AsyncIterator[str]:
    """A database with the project's tables, to be copied: nobody connects to it."""
    async with migrated_database(postgres_server_dsn) as dsn:
        yield dsn


@pytest.fixture
async def empty_postgres_dsn(postgres_server_dsn: str) -> AsyncIterator[str]:
    async with empty_database(postgres_server_dsn) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def rabbitmq_dsn(request: pytest.FixtureRequest) -> str:
    if dsn := os.environ.get("RABBITMQ_URL"):
        return dsn
    node: RabbitNode = request.getfixturevalue("rabbitmq")
    return node.dsn


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
async def rabbitmq() -> AsyncIterator[RabbitNode]:
    """One private node a process: booting takes three seconds of CPU."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with rabbit_node(Path(folder)) as node:
            yield node


@pytest.fixture
async def private_rabbitmq(rabbitmq: RabbitNode) -> AsyncIterator[RabbitNode]:
    """The node, to be hurt by one test at a time; whole again after each, except for its queues."""
    yield rabbitmq
    rabbitmq.resume()
    if not rabbitmq.running:
        await rabbitmq.start()


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

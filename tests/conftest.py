"""Fixtures for the servers that tests run against. Each starts when a test first asks for it.

postgres_server_dsn  DATABASE_URL, or an embedded PostgreSQL; tests/own_stores.py makes one database per test file on it
empty_postgres_dsn   a new, empty database for one test
rabbitmq_dsn         RABBITMQ_URL, or a private node of an installed rabbitmq-server
private_postgres, private_redis, private_rabbitmq   servers for tests that kill or freeze one
servers              the addresses of the three stores
stack                one API and two executors that use `servers`
sdk_clients          the AI SDK's clients
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
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
from backend.migrating import migrate
from tests import ROOT, speed
from tests.e2e.sdk import SdkClients, open_sdk_clients
from tests.e2e.stack import Servers, Stack, open_stack
from tests.faults.figures import FiguresAtTheEnd
from tests.faults.scale import FULL
from tests.process_logs import logs_of
from tests.reporting import FAILURES, ShortFailures
from tests.servers.fork_server import fork_server
from tests.servers.postgres import PostgresNode, empty_database, migrated_database, postgres_node
from tests.servers.rabbitmq import RabbitNode, rabbit_node
from tests.servers.redis import RedisNode
from tests.servers.redis_cluster import redis_to_test

# no deadline, because a busy machine may pause for longer than any example needs; a failure prints how to repeat it
settings.register_profile("busy machine", deadline=None, print_blob=True)
settings.load_profile("busy machine")

gc.disable()  # until the tests are collected, because imported modules are never freed
_PER_TEST = 120.0
_LONGEST = (
    "test_alerts", "test_mcp_tasks", "test_interruptions", "test_failpoints", "test_ai_sdk_clients", "test_kill_storm",
    "test_outages", "test_conversations", "test_killed_model_calls", "test_mcp_turns", "test_client_examples",
    "test_long_conversations", "test_up", "test_mcp", "test_embedded", "test_sdk_checker", "test_api_schemathesis",
    "test_agents_on_the_page", "test_robustness", "test_messages", "test_model", "test_starts_in_outages",
    "test_soak", "test_idle", "test_metrics", "test_turn_queue", "test_cancelling", "test_executor_deaths",
    "test_executor", "test_resumable_client", "test_agent_deaths", "test_rolling_restarts", "test_backups",
    "test_questions", "test_completions", "test_cancels", "test_reconnects", "test_mcp_careless_servers",
    "test_operation_races",
)  # fmt: skip
"""Files that take half a minute or longer. They begin first, so that none of them runs alone at the end of a run."""
_ONE_SERVER = frozenset({"test_alerts", "test_gone_readers", "test_idle", "test_soak"})
"""Fault tests that look into the one Redis, and are skipped with REDIS=cluster."""
_KEYS_WITHOUT_TTL = frozenset({keys.TURNS, keys.DEAD_TURNS, keys.COMPLETIONS, keys.DEAD_COMPLETIONS})


def pytest_configure(config: pytest.Config) -> None:
    """Measures the machine and registers the plugins, in the process that prints. The workers of xdist inherit the
    measurement from it."""
    if hasattr(config, "workerinput"):
        return
    workers = getattr(config.option, "numprocesses", None) or 1
    speed.share_cores(workers)
    speed.slowness()  # measured once, and stored for the workers
    config.pluginmanager.register(ShortFailures(FAILURES))
    config.pluginmanager.register(FiguresAtTheEnd())


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_report_header() -> str:
    return f"limits: {speed.limit(1):.1f} times the usual"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the longest files to the front. Limits each test to two minutes on the usual machine, or to the seconds of
    its own timeout mark."""
    items.sort(key=lambda item: _LONGEST.index(item.path.stem) if item.path.stem in _LONGEST else len(_LONGEST))
    for item in items:
        mark = item.get_closest_marker("timeout")
        seconds = float(mark.args[0]) if mark is not None else _PER_TEST
        item.add_marker(pytest.mark.timeout(speed.limit(seconds)), append=False)
        if os.environ.get("REDIS") == "cluster" and item.path.stem in _ONE_SERVER:
            item.add_marker(pytest.mark.skip(reason="looks into one Redis"))


@pytest.fixture(scope="session", autouse=True)
async def processes() -> AsyncIterator[None]:
    """Forks API and executor processes from one that has imported everything, except in `make faults`."""
    if FULL:
        yield
        return
    async with fork_server():
        yield


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A new folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
async def postgres_server_dsn(cluster: Path) -> AsyncIterator[str]:
    """The DSN of a server on which databases can be created. Its path names an existing database."""
    if dsn := os.environ.get("DATABASE_URL"):
        yield dsn
        return
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        data = shutil.copytree(cluster, Path(folder) / "data")
        async with embedded_servers(data, redis=False) as servers:
            yield servers.postgres_dsn


@pytest.fixture(scope="session")
async def migrated_dsn(postgres_server_dsn: str) -> AsyncIterator[str]:
    """A database with the project's tables that is only copied. Nobody connects to it."""
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
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a stopped embedded PostgreSQL whose database has the project's tables. Copying it is faster
    than a first start, so the first process of a run that needs it makes it for all."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "cluster.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not (shared / "cluster").exists():
            with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
                async with embedded_servers(Path(folder) / "data", redis=False) as servers:
                    await migrate(servers.postgres_dsn)
                shutil.copytree(Path(folder) / "data", shared / "cluster.new")
            (shared / "cluster.new").rename(shared / "cluster")
    return shared / "cluster"


@pytest.fixture
def data(cluster: Path, short_path: Path) -> Path:
    """The data folder of a stopped embedded PostgreSQL. Its database has the project's tables."""
    return Path(shutil.copytree(cluster, short_path / "data"))


@pytest.fixture
async def private_postgres(data: Path) -> AsyncIterator[PostgresNode]:
    async with postgres_node(data) as node:
        yield node


@pytest.fixture
async def private_redis(short_path: Path) -> AsyncIterator[RedisNode]:
    async with redis_to_test(short_path) as node:
        yield node


@pytest.fixture(scope="session")
async def rabbitmq() -> AsyncIterator[RabbitNode]:
    """One private node per test process, with the shipped settings. Tests share it, because booting one takes three
    seconds of CPU or more."""
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        async with rabbit_node(Path(folder), (ROOT / "deploy" / "rabbitmq.conf").read_text()) as node:
            yield node


@pytest.fixture
async def private_rabbitmq(rabbitmq: RabbitNode) -> AsyncIterator[RabbitNode]:
    """The node, for tests that stop or freeze it. It runs again after each test, but keeps its queues."""
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
    """The addresses of the stores, with RabbitMQ as the queue. A module marked `over_both_queues` runs over the Redis
    queue, too."""
    if request.param == "redis":
        return Servers(postgres_dsn, redis_dsn)
    return Servers(postgres_dsn, redis_dsn, request.getfixturevalue("rabbitmq_dsn"))


@pytest.fixture(scope="module")
async def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One API and two executors, shared by a module's tests. Each test has its own users and sessions."""
    folder: Path = tmp_path_factory.mktemp("stack")
    async with open_stack(servers, folder, executors=2) as stack:
        yield stack


@pytest.fixture(autouse=True)
def every_key_has_a_ttl(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a Redis key without a TTL."""
    if "redis_dsn" not in request.fixturenames:
        yield
        return
    dsn: str = request.getfixturevalue("redis_dsn")
    before = _keys_without_ttl(dsn)
    yield
    left = _keys_without_ttl(dsn) - before
    assert not left, f"keys without a TTL: {sorted(left)}"


def _keys_without_ttl(dsn: str) -> set[str]:
    if "+cluster://" in dsn:  # what differs is only where the keys are
        return set()
    with redis.Redis.from_url(dsn, decode_responses=True) as client:
        found = [*set(client.scan_iter(match="chat:*", count=1000)) - _KEYS_WITHOUT_TTL]
        with client.pipeline(transaction=False) as asked:  # one round trip, because a file may have a thousand keys
            for key in found:
                asked.ttl(key)
            return {key for key, ttl in zip(found, asked.execute(), strict=True) if ttl == -1}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Adds the logs of the processes to the report of a failed test."""
    report = (yield).get_result()
    if report.failed:
        report.sections += logs_of(getattr(item, "funcargs", {}))

"""The executor's own door: its port is known to be free before it works, and it says what the API says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from backend.chat import cancelling, flows
from backend.chat.models import Caller, TaskStatus, Turn, TurnRequest
from backend.config import load_settings
from backend.errors import ConfigError
from backend.ids import new_session_id
from backend.resources import Resources, open_resources
from executor.crew import Crew
from executor.health import serve_health
from executor.heartbeat import Heartbeat
from executor.llm.model import open_model
from executor.metrics import Metrics
from executor.tools import open_toolbox
from executor.worker import Worker
from tests.integration.api_house import api_house
from tests.integration.reading_room import new_task
from tests.servers.postgres import copied_database
from tests.servers.redis import RedisNode
from tests.speed import limit


@asynccontextmanager
async def house_over(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Resources]:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", chat_provider="scripted"
    )
    async with open_resources(settings) as house:
        yield house


@pytest.fixture
async def house(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Resources]:
    async with house_over(postgres_dsn, redis_dsn) as house:
        yield house


@pytest.fixture
async def empty_house(migrated_dsn: str, private_redis: RedisNode) -> AsyncIterator[Resources]:
    """Over stores of one test's own: an executor takes up every turn that it finds."""
    async with copied_database(migrated_dsn) as dsn, house_over(dsn, private_redis.dsn) as house:
        yield house


async def ask(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        return await http.get(path, timeout=limit(20))


async def test_a_second_executor_on_the_same_port_is_told_which_setting_to_change(
    house: Resources, free_port: int
) -> None:
    async with serve_health(house, free_port, Metrics()):
        with pytest.raises(ConfigError, match=rf"EXECUTOR_PORT.*:{free_port}"):
            async with serve_health(house, free_port, Metrics()):
                pytest.fail("it must not go on to work")
        assert (await ask(free_port, "/health/live")).json() == {"status": "ok"}


async def test_the_port_is_free_again_afterwards(house: Resources, free_port: int) -> None:
    for _ in range(2):
        async with serve_health(house, free_port, Metrics()):
            assert (await ask(free_port, "/api/chat/health")).json()["service"] == "executor"


async def test_both_processes_check_the_same_things(
    house: Resources, postgres_dsn: str, redis_dsn: str, free_port: int
) -> None:
    async with api_house(postgres_dsn, redis_dsn, executor=False) as api, serve_health(house, free_port, Metrics()):
        ours, theirs = await ask(free_port, "/health/ready"), await api.http.get("/health/ready")
    assert theirs.json()["checks"] == {**ours.json()["checks"], "completions": True}
    assert ours.json()["status"] == theirs.json()["status"] == "ready"


async def test_turns_are_counted_by_how_they_ended_and_how_long_they_took(house: Resources, free_port: int) -> None:
    metrics, now = Metrics(), datetime.now(UTC)
    metrics.watch_running(lambda: 3)
    metrics.count_first_chunk(0.7)
    for status in (TaskStatus.COMPLETED, TaskStatus.COMPLETED, TaskStatus.FAILED):
        metrics.count_end(replace(new_task(status), started_at=now - timedelta(seconds=4), finished_at=now))
    async with serve_health(house, free_port, metrics):
        text = (await ask(free_port, "/metrics")).text
    assert 'turns_ended_total{status="completed"} 2.0' in text
    assert 'turns_ended_total{status="failed"} 1.0' in text
    assert "turns_running 3.0" in text
    assert 'turn_first_chunk_seconds_bucket{le="1.0"} 1.0' in text
    assert 'turn_seconds_bucket{le="2.5"} 0.0' in text
    assert 'turn_seconds_bucket{le="5.0"} 3.0' in text


async def test_an_executor_counts_the_turns_that_it_runs(empty_house: Resources) -> None:
    house = empty_house
    stop, session, caller = asyncio.Event(), new_session_id(), Caller(None, "tests of the metrics")
    async with open_model(house.settings) as model:
        crew = Crew(house.settings, model, None, open_toolbox(house.settings), Heartbeat(house))
        working = asyncio.create_task(Worker(house, crew).run(stop))
        request = TurnRequest("/stream 100000 20")
        task, _ = await flows.start_turn(house, caller, session, request, message_key=None, create_session=True)
        await house.outbox.publish(Turn(task.id, session))
        async with asyncio.timeout(limit(30)):
            while b"turn_first_chunk_seconds_count 1.0" not in crew.metrics.render():
                await asyncio.sleep(0.02)
            assert b"turns_running 1.0" in crew.metrics.render()
            await cancelling.cancel_task(house, task)
            while b"turns_ended_total" not in crew.metrics.render():
                await asyncio.sleep(0.02)
            stop.set()
            await working
    text = crew.metrics.render().decode()
    assert 'turns_ended_total{status="cancelled"} 1.0' in text
    assert "turns_running 0.0" in text
    assert "turn_first_chunk_seconds_count 1.0" in text
    assert "turn_seconds_count 1.0" in text


async def test_what_is_no_page_is_said(house: Resources, free_port: int) -> None:
    async with serve_health(house, free_port, Metrics()), httpx.AsyncClient(trust_env=False) as client:
        base = f"http://127.0.0.1:{free_port}"
        assert (await client.get(f"{base}/elsewhere")).status_code == 404
        refused = await client.delete(f"{base}/health")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        head = await client.head(f"{base}/api/chat/health/live?deep=1")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "15", b"")


async def test_an_idle_client_does_not_keep_the_executor_from_ending(house: Resources, free_port: int) -> None:
    async with asyncio.timeout(limit(20)):
        async with serve_health(house, free_port, Metrics()):
            reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
            writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"}")
        assert await reader.read() == b""
    writer.close()

"""Tests of the executor's HTTP port, which is bound before it takes turns and has the health checks of the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr

from backend.chat.flows import cancel, start
from backend.chat.models import Caller, TaskStatus, Turn, TurnRequest
from backend.chat.resources import Resources
from backend.config import load_settings
from backend.errors import ConfigError
from backend.ids import new_session_id
from backend.resources import open_resources
from executor.health import serve_health
from executor.heartbeat import Heartbeat
from executor.llm.models import open_models
from executor.metrics import ExecutorMetrics
from executor.tools import open_toolbox
from executor.turns.context import ExecutorContext
from executor.worker import Worker
from tests.integration.reader_rig import new_task
from tests.integration.running_api import running_api
from tests.plain_http import http_client
from tests.servers.postgres import copied_database
from tests.servers.redis import RedisNode
from tests.speed import limit


@asynccontextmanager
async def resources_on(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Resources]:
    settings = load_settings(
        files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis", chat_provider="scripted"
    )
    async with open_resources(settings) as resources:
        yield resources


@pytest.fixture
async def resources(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Resources]:
    async with resources_on(postgres_dsn, redis_dsn) as resources:
        yield resources


@pytest.fixture
async def own_resources(migrated_dsn: str, private_redis: RedisNode) -> AsyncIterator[Resources]:
    """Resources on stores for one test, because an executor takes up every turn that it finds."""
    async with copied_database(migrated_dsn) as dsn, resources_on(dsn, private_redis.dsn) as resources:
        yield resources


async def ask(port: int, path: str) -> httpx.Response:
    async with http_client(base_url=f"http://127.0.0.1:{port}") as http:
        return await http.get(path, timeout=limit(20))


async def test_a_second_executor_on_the_same_port_fails_and_names_the_setting(
    resources: Resources, free_port: int
) -> None:
    async with serve_health(resources, free_port, ExecutorMetrics()):
        with pytest.raises(ConfigError, match=rf"EXECUTOR_PORT.*:{free_port}"):
            async with serve_health(resources, free_port, ExecutorMetrics()):
                pytest.fail("it must not start")
        assert (await ask(free_port, "/health/live")).json() == {"status": "ok"}


async def test_the_port_is_free_after_the_server_stopped(resources: Resources, free_port: int) -> None:
    for _ in range(2):
        async with serve_health(resources, free_port, ExecutorMetrics()):
            assert (await ask(free_port, "/api/chat/health")).json()["service"] == "executor"


async def test_both_processes_have_the_same_readiness_checks(
    resources: Resources, postgres_dsn: str, redis_dsn: str, free_port: int
) -> None:
    async with (
        running_api(postgres_dsn, redis_dsn, executor=False) as api,
        serve_health(resources, free_port, ExecutorMetrics()),
    ):
        executor, api_answer = await ask(free_port, "/health/ready"), await api.http.get("/health/ready")
    assert api_answer.json()["checks"] == {**executor.json()["checks"], "completions": True}
    assert executor.json()["status"] == api_answer.json()["status"] == "ready"


async def test_turns_are_counted_by_status_and_duration(resources: Resources, free_port: int) -> None:
    metrics, now = ExecutorMetrics(), datetime.now(UTC)
    metrics.watch_running(lambda: 3)
    metrics.count_first_chunk(0.7)
    for status in (TaskStatus.COMPLETED, TaskStatus.COMPLETED, TaskStatus.FAILED):
        metrics.count_end(replace(new_task(status), started_at=now - timedelta(seconds=4), finished_at=now))
    async with serve_health(resources, free_port, metrics):
        text = (await ask(free_port, "/metrics")).text
    assert 'turns_ended_total{status="completed"} 2.0' in text
    assert 'turns_ended_total{status="failed"} 1.0' in text
    assert "turns_running 3.0" in text
    assert 'turn_first_chunk_seconds_bucket{le="1.0"} 1.0' in text
    assert 'turn_seconds_bucket{le="2.5"} 0.0' in text
    assert 'turn_seconds_bucket{le="5.0"} 3.0' in text


async def test_the_series_of_every_model_that_an_executor_may_ask_begin_at_0(resources: Resources) -> None:
    models = [
        {"id": name, "provider": "openai", "model": f"model-{name}", "base_url": "http://127.0.0.1:9/v1"}
        for name in ("a", "b")
    ]
    settings = load_settings(files=(), chat_models=json.dumps(models))
    async with open_models(settings) as opened:
        context = ExecutorContext(settings, opened, open_toolbox(settings), Heartbeat(resources))
    text = context.metrics.render().decode()
    for name in ("a", "b"):
        assert f'model_calls_total{{model="model-{name}",outcome="provider_error"}} 0.0' in text


async def test_an_executor_counts_the_turns_that_it_runs(own_resources: Resources) -> None:
    resources = own_resources
    stop, session, caller = asyncio.Event(), new_session_id(), Caller(None, "tests of the metrics")
    async with open_models(resources.settings) as models:
        context = ExecutorContext(resources.settings, models, open_toolbox(resources.settings), Heartbeat(resources))
        working = asyncio.create_task(Worker(resources, context).run(stop))
        request = TurnRequest("/stream 100000 20")
        started = await start.start_turn(resources, caller, session, request, message_key=None, create_session=True)
        task = started.task
        await resources.outbox.publish(Turn(task.id, session))
        async with asyncio.timeout(limit(30)):
            while b"turn_first_chunk_seconds_count 1.0" not in context.metrics.render():
                await asyncio.sleep(0.02)
            assert b"turns_running 1.0" in context.metrics.render()
            await cancel.cancel_task(resources, task)
            while b'turns_ended_total{status="cancelled"} 1.0' not in context.metrics.render():
                await asyncio.sleep(0.02)
            stop.set()
            await working
    text = context.metrics.render().decode()
    assert "turns_running 0.0" in text
    assert "turn_first_chunk_seconds_count 1.0" in text
    assert "turn_seconds_count 1.0" in text


async def test_unknown_paths_and_methods_are_refused(resources: Resources, free_port: int) -> None:
    async with serve_health(resources, free_port, ExecutorMetrics()), http_client() as client:
        base = f"http://127.0.0.1:{free_port}"
        assert (await client.get(f"{base}/elsewhere")).status_code == 404
        refused = await client.delete(f"{base}/health")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        head = await client.head(f"{base}/api/chat/health/live?deep=1")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "15", b"")


async def test_an_idle_client_does_not_delay_the_end_of_the_executor(resources: Resources, free_port: int) -> None:
    async with asyncio.timeout(limit(20)):
        async with serve_health(resources, free_port, ExecutorMetrics()):
            reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
            writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"}")
        assert await reader.read() == b""
    writer.close()


async def test_with_a_key_metrics_of_both_processes_need_it(postgres_dsn: str, redis_dsn: str, free_port: int) -> None:
    key = "a-key-of-the-scraper-0123456789é"
    async with running_api(postgres_dsn, redis_dsn, executor=False, metrics_key=key) as api:
        resources = replace(
            api.resources, settings=api.resources.settings.model_copy(update={"metrics_key": SecretStr(key)})
        )
        async with (
            serve_health(resources, free_port, ExecutorMetrics()),
            http_client(base_url=f"http://127.0.0.1:{free_port}", timeout=limit(20)) as executor,
        ):
            for http in (api.http, executor):
                for given in ("", "Bearer", f"Bearer {key}x", f"Bearer {key[:-1]}", f"Basic {key}", key):
                    refused = await http.get("/metrics", headers={"authorization": given.encode()})
                    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
                answer = await http.get("/metrics", headers={"authorization": f"Bearer {key}".encode()})
                assert answer.status_code == 200
                assert "# HELP" in answer.text
                assert (await http.get("/health/live")).status_code == 200

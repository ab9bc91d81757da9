"""Tests of the stores of docker-compose.yml. They run without Docker, which the test machine lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis.asyncio
import yaml

from backend.embedded import Child
from backend.embedded.valkey import valkey_binary
from tests import ROOT
from tests.servers.ports import free_port
from tests.servers.rabbitmq import RabbitNode

PASSWORD = "3c1f0e5a9b7d2468"


async def test_redis_starts_with_the_password_and_evicts_nothing(short_path: Path) -> None:
    port = free_port()
    (short_path / "redis-server").symlink_to(valkey_binary())
    shell, flag, script = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]
    here = script.replace("$$", "$").replace("--dir /data", f"--dir {short_path} --port {port}")
    environment = {"PATH": f"{short_path}:/usr/bin:/bin", "REDIS_PASSWORD": PASSWORD}
    dsn = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"

    async def ready() -> bool:
        async with redis.asyncio.Redis.from_url(dsn) as client:
            try:
                return await client.ping()
            except redis.ConnectionError:
                return False

    server = Child(
        "Redis", [f"/bin/{shell}", flag, here], ready=ready, environment=environment, log=short_path / "redis.log"
    )
    try:
        await server.start()
        async with redis.asyncio.Redis.from_url(dsn, decode_responses=True) as client:
            settings = await client.config_get("appendonly", "maxmemory-policy", "save")
            assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}
        assert PASSWORD not in Path(f"/proc/{server.pid}/cmdline").read_text()
        async with redis.asyncio.Redis.from_url(f"redis://127.0.0.1:{port}/0") as stranger:
            with pytest.raises(redis.AuthenticationError):
                await stranger.ping()
    finally:
        await server.stop()


async def test_rabbitmq_applies_the_settings_file(rabbitmq: RabbitNode) -> None:
    assert "consumer_timeout = 10800000" in (ROOT / "deploy" / "rabbitmq.conf").read_text()
    assert "10800000" in await rabbitmq.eval("application:get_env(rabbit, consumer_timeout)")

"""Refusals of Redis: by a server that is not the master, by one that cannot store, and for lack of permissions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from backend.chat.keys import READY_TTL
from backend.chat.streams.hub import Hub
from backend.chat.streams.pubsub import PubSubConnection
from backend.chat.streams.streams import Streams
from backend.errors import ConfigError, Unavailable
from backend.logs import why_away
from backend.redis import answered, open_redis, open_waiting_redis, require_right_mode
from backend.redis_moves import ConnectionGroup
from tests.integration.reader_rig import until
from tests.integration.running_api import running_api
from tests.servers.ports import free_port
from tests.servers.redis import RedisNode, redis_node
from tests.servers.tls import make_certificates, tls_entrance
from tests.speed import limit

Act = Callable[[Redis], Awaitable[None]]


async def _demote(operator: Redis) -> None:
    await operator.replicaof("127.0.0.1", 1)


async def _promote(operator: Redis) -> None:
    await operator.replicaof("NO", "ONE")


async def _demand_a_replica(operator: Redis) -> None:
    await operator.config_set("min-replicas-to-write", 1)


async def _demand_no_replica(operator: Redis) -> None:
    await operator.config_set("min-replicas-to-write", 0)


async def _subscriber(dsn: str) -> PubSubConnection:
    return await PubSubConnection.connect(dsn, lambda *_: None, lambda _: None)


@pytest.mark.parametrize(
    ("refuse", "accept", "word"),
    [(_demote, _promote, "READONLY"), (_demand_a_replica, _demand_no_replica, "NOREPLICAS")],
    ids=["a replica", "too few replicas"],
)
async def test_the_first_connection_that_is_refused_takes_all_others_with_it(
    private_redis: RedisNode, refuse: Act, accept: Act, word: str
) -> None:
    """A server that becomes a replica ends waiting reads itself. One that has too few replicas ends nothing, so there
    the read and the subscription end only because the process closes their connections."""
    dsn = private_redis.dsn
    async with asyncio.timeout(limit(30)), Redis.from_url(dsn, single_connection_client=True) as operator:
        async with (
            open_redis(dsn, pool_size=4) as redis,
            open_waiting_redis(dsn, longest_wait=limit(60)) as waiting,
            asyncio.TaskGroup() as jobs,
        ):
            await asyncio.gather(redis.ping(), redis.ping())
            link = await _subscriber(dsn)
            reading = jobs.create_task(_refused_read(waiting))
            await until(partial(_clients_are, operator, "blocked_clients", 1))
            await refuse(operator)
            with pytest.raises(Unavailable) as refused:
                async with answered():
                    await redis.set("key", 1)
            assert word in why_away(refused.value.__cause__)
            await link.closed
            await reading
            await accept(operator)
            await redis.set("key", 2)
            assert await redis.get("key") == b"2"
        await until(partial(_clients_are, operator, "connected_clients", 1))


async def _refused_read(waiting: Redis) -> None:
    with pytest.raises(ConnectionError):
        await waiting.xread({"nothing": "$"}, block=round(limit(60) * 1000))


async def _clients_are(operator: Redis, kind: str, count: int) -> bool:
    found: int = (await operator.info("clients"))[kind]
    return found == count


async def test_no_connection_is_made_to_a_replica(private_redis: RedisNode, caplog: pytest.LogCaptureFixture) -> None:
    async with Redis.from_url(private_redis.dsn) as operator:
        await _demote(operator)
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        with pytest.raises(ConnectionError, match="READONLY"):
            await redis.ping()
    with pytest.raises(OSError, match="READONLY"):
        await _subscriber(private_redis.dsn)
    assert not caplog.records


def test_connections_are_cut_seldom_while_servers_go_on_refusing() -> None:
    class Counting:
        cuts = 0

        def cut(self) -> None:
            self.cuts += 1

    group, connection = ConnectionGroup(), Counting()
    group.add(connection)
    for _ in range(1000):
        group.note_refusal()
    assert connection.cuts == 1


@pytest.mark.parametrize(
    ("setting", "value", "word"), [("maxmemory", "1", "OOM"), ("min-replicas-to-write", "1", "NOREPLICAS")]
)
async def test_a_server_that_takes_no_writes_is_unavailable_and_its_words_are_told(
    private_redis: RedisNode, setting: str, value: str, word: str
) -> None:
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        await redis.config_set(setting, value)
        with pytest.raises(Unavailable) as refused:
            async with answered():
                await redis.set("key", 1)
        assert why_away(refused.value.__cause__).startswith(word)
        await redis.config_set(setting, "0")
        async with answered():
            await redis.set("key", 1)


async def test_readiness_says_why_redis_takes_no_writes(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with running_api(postgres_dsn, private_redis.dsn) as api, Redis.from_url(private_redis.dsn) as operator:

        async def ready(word: str | None) -> bool:
            answer = await api.http.get("/api/chat/health/ready")
            reason: str = answer.json().get("reasons", {}).get("redis", "")
            return answer.status_code == 200 if word is None else reason.startswith(word)

        for setting, value, word in (("maxmemory", "1", "OOM"), ("min-replicas-to-write", "1", "NOREPLICAS")):
            await until(partial(ready, None))
            await operator.config_set(setting, value)
            await until(partial(ready, word))
            await operator.config_set(setting, "0")
        await until(partial(ready, None))
        (written,) = [key async for key in operator.scan_iter("chat:ready:*")]
        assert 0 < await operator.ttl(written) <= READY_TTL


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_node_of_a_cluster_is_refused(tmp_path: Path, protocol: int) -> None:
    async with redis_node(tmp_path, cluster_enabled="yes", cluster_port=str(free_port())) as node:
        async with Redis.from_url(node.dsn) as operator:
            await operator.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)  # even if it has all slots
        dsn = f"{node.dsn}?protocol={protocol}"
        async with open_redis(dsn, pool_size=2) as redis, asyncio.timeout(limit(30)):
            with pytest.raises(ConfigError, match=r"^REDIS_URL: [^\n]*Redis Cluster[^\n]*$"):
                await require_right_mode(redis)
        with pytest.raises(OSError, match=r"^CLUSTER "):
            await _subscriber(node.dsn)


async def test_a_server_without_cluster_mode_or_that_is_away_may_start(private_redis: RedisNode) -> None:
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        await require_right_mode(redis)
        await private_redis.kill()
        await require_right_mode(redis)
        await private_redis.start()


async def test_a_server_whose_disk_fails_is_unavailable_and_its_words_are_told(private_redis: RedisNode) -> None:
    (private_redis.folder / "dump.rdb").mkdir()  # so no snapshot can be written
    async with open_redis(private_redis.dsn, pool_size=2) as redis:
        await redis.config_set("save", "3600 1")
        await redis.bgsave()

        async def failed() -> bool:
            status: str = (await redis.info("persistence"))["rdb_last_bgsave_status"]
            return status == "err"

        await until(failed)
        with pytest.raises(Unavailable) as refused:
            async with answered():
                await redis.set("key", 1)
        assert why_away(refused.value.__cause__).startswith("MISCONF")
        await redis.config_set("save", "")  # or else Valkey would not end at SIGTERM: it saves first, and cannot


async def test_a_user_without_channels_is_told_once_and_the_hub_is_not_healthy(
    private_redis: RedisNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(private_redis.dsn) as operator:
        await operator.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels")
    dsn = private_redis.dsn.replace("redis://", "redis://app:pw@")
    with caplog.at_level(logging.WARNING):
        async with open_redis(dsn, pool_size=2) as redis, Hub(dsn, Streams(redis, 60), _no_tasks) as hub:
            assert not hub.healthy

            async def tried_again() -> bool:
                async with Redis.from_url(private_redis.dsn) as operator:
                    return len(await operator.acl_log()) > 0 and (await operator.acl_log())[0]["count"] > 2

            await until(tried_again)
    (line,) = [record for record in caplog.records if "pub/sub" in record.message]
    assert "NOPERM" in line.error  # type: ignore[attr-defined]
    assert "pw" not in line.error.split()  # type: ignore[attr-defined]


async def _no_tasks(_: object) -> list[object]:  # type: ignore[misc]
    return []


async def test_every_connection_presents_the_client_certificate(private_redis: RedisNode, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with tls_entrance(certificates, private_redis.port) as port, asyncio.timeout(limit(30)):
        trust = f"ssl_ca_certs={certificates.authority}"
        mine = f"ssl_certfile={certificates.client}&ssl_keyfile={certificates.client_key}"
        dsn = f"rediss://127.0.0.1:{port}/0?{trust}&{mine}"
        async with open_redis(dsn, pool_size=2) as redis:
            assert await redis.ping()
        link = await _subscriber(dsn)
        link.close()
        await link.closed
        with pytest.raises((OSError, ConnectionError)):
            await _subscriber(f"rediss://127.0.0.1:{port}/0?{trust}")
        with pytest.raises(OSError, match="certificate") as unknown:
            await _subscriber(f"rediss://127.0.0.1:{port}/0?{mine}")
        assert "certificate is not accepted" in why_away(unknown.value)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("redis-sentinel://:secret@a:26379/mymaster/0", "must begin with"),
        ("127.0.0.1:6379", "must begin with"),
        ("redis://:secret@a:6379,b:6379/0", "several hosts"),
        ("redis://:sec/ret@a:6379/0", "percent-encode"),
        ("redis://:secret@a:6379/0?foo=bar", "option foo is not known"),
        ("redis://:secret@a:6379/0?protocol=new", "protocol"),
        ("rediss://:secret@a:6379/0?ssl_cert_reqs=maybe", "maybe"),
        ("rediss://:secret@a:6379/0?ssl_ca_certs=/no/such/file", "/no/such/file"),
    ],
)
async def test_an_address_that_cannot_be_used_is_a_wrong_setting_told_in_one_line(dsn: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL: ") as refused:
        async with open_redis(dsn, pool_size=2):
            pass
    assert words in str(refused.value)
    assert "sec" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        ("redis://", "valkey://"),
        ("/0", "/0?client_name=x&max_connections=5&decode_responses=true&socket_timeout=1"),
        ("/0", "/0?protocol=2&ssl_cert_reqs=none"),
    ],
)
async def test_addresses_as_other_clients_write_them_work(private_redis: RedisNode, change: tuple[str, str]) -> None:
    dsn = private_redis.dsn.replace(*change)
    async with open_redis(dsn, pool_size=2) as redis, asyncio.timeout(limit(20)):
        assert await redis.set("key", "value")
        assert await redis.get("key") == b"value"
    link = await _subscriber(dsn)
    link.close()
    await link.closed

"""Checks of Redis: reach, version, clock, persistence, memory, and what was given up. They write nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.chat.leases.clock_skew import ClockSkew
from backend.chat.queue.completions import dead_completions
from backend.chat.queue.redis_consumer import QueueKeys
from backend.config import Settings
from backend.errors import ConfigError
from backend.logs import why_away
from backend.operating.findings import Finding, error, ok, warning
from backend.redis import open_redis
from backend.redis_address import place_of_redis

_CLOCKS_APART = 5.0  # seconds
_SLOW_MS = 50.0
_FULL = 0.8


async def check_redis(settings: Settings) -> AsyncIterator[Finding]:
    """Yields the findings. Ends with the first one if Redis cannot be reached."""
    try:
        async with open_redis(settings.redis_dsn, pool_size=2) as redis:
            async for finding in _check(redis):
                yield finding
    except ConfigError as wrong:
        yield error("redis", str(wrong), "correct the setting: docs/redis.md")
    except (RedisError, OSError, TimeoutError) as away:
        where = place_of_redis(settings.redis_dsn)
        yield error("redis", f"{where}: {why_away(away)}", "see docs/runbook.md, When a store is unavailable")


async def _check(redis: Redis) -> AsyncIterator[Finding]:
    began = time.monotonic()
    await redis.ping()
    took = 1000 * (time.monotonic() - began)
    skew = ClockSkew(_CLOCKS_APART)
    with skew.measured() as reading:
        seconds, microseconds = await redis.time()
        reading.clock = seconds + microseconds / 1e6
    try:
        facts = await redis.info()
    except RedisError as refused:
        yield warning("redis", f"INFO is refused: {why_away(refused)}", "allow it: memory and persistence are unknown")
    else:
        name = "Valkey" if "valkey_version" in facts else "Redis"
        version = facts.get("valkey_version") or facts.get("redis_version")
        yield ok("redis", f"{name} {version}, answers in {took:.1f} ms")
        for finding in _unusual(facts):
            yield finding
    if took > _SLOW_MS:
        yield warning("redis", f"it took {took:.0f} ms to answer", "use a server nearby: every chunk goes there")
    if skew.too_large:
        yield warning("clock", f"{skew.seconds:+.1f} s against Redis", "set both clocks by NTP")
    for finding in await _dead_letters(redis):
        yield finding


def _unusual(facts: Mapping[str, Any]) -> Iterator[Finding]:
    policy = facts.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        yield error("redis", f"maxmemory-policy is {policy}", "set noeviction: it may drop the queue and live streams")
    if facts.get("aof_enabled") == 0:
        yield warning("redis", "appendonly is off", "set appendonly yes: a crash loses all live streams")
    if facts.get("role") not in (None, "master"):
        yield error("redis", f"it is a {facts['role']}", "let REDIS_URL lead to the master: docs/redis.md")
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if limit and used > _FULL * limit:
        yield error("redis", f"{used / limit:.0%} of maxmemory is used", "see docs/runbook.md, Redis fills up")


async def _dead_letters(redis: Redis) -> list[Finding]:
    found = []
    for key, advice in (
        (QueueKeys.of(redis).dead, "an executor fails their tasks; see docs/runbook.md, Dead letters"),
        (dead_completions(redis), "look at them with `python -m backend dead-letters list`"),
    ):
        number = await redis.xlen(key)
        if number:
            found.append(warning("dead", f"{number} entries in {key}", advice))
    return found or [ok("dead", "no dead letters in Redis")]

"""Anonymous callers behind a trusted proxy have limits of their own. A forged header raises no limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.postgres import Database
from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api


@pytest.fixture(autouse=True)
async def nobody_has_turns(database: Database) -> AsyncIterator[None]:
    """Neither before nor after: all anonymous callers of the tests come from one address."""
    await _forget_anonymous(database)
    yield
    await _forget_anonymous(database)


async def _forget_anonymous(database: Database) -> None:
    async with database.connection() as c:
        await c.execute("DELETE FROM sessions WHERE user_id IS NULL")


async def status_of_a_turn(api: RunningApi, forwarded_for: str) -> int:
    """Sends a message and goes when the answer begins; without an executor the turn stays."""
    session = await api.new_session()
    path, headers = f"/api/chat/sessions/{session}/stream", {"x-forwarded-for": forwarded_for}
    async with asyncio.timeout(LIMIT), api.http.stream("POST", path, json={"message": "x"}, headers=headers) as answer:
        return answer.status_code


@pytest.mark.parametrize(
    ("trusted", "of_another"), [("10.0.0.0/8, 127.0.0.1", 200), ("10.0.0.0/8", 429)], ids=["trusted", "not trusted"]
)
async def test_limits_count_by_the_callers_address(
    postgres_dsn: str, redis_dsn: str, trusted: str, of_another: int
) -> None:
    changes: dict[str, Any] = {"trusted_proxies": trusted, "max_running_turns": 1, "max_waiting_turns": 0}
    async with running_api(postgres_dsn, redis_dsn, executor=False, **changes) as api:
        one, other = (f"2001:db8:{new_id()[:4]}::{n}" for n in (1, 2))
        first = await status_of_a_turn(api, one)
        assert await status_of_a_turn(api, f"{other}, {one}") == 429
        assert [first, await status_of_a_turn(api, other)] == [200, of_another]

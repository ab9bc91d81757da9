"""With CHAT_SUMMARIES=False, a conversation that fills its context is trimmed, and no summary is made or used."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.running_api import RunningApi, running_api


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    small = {"chat_context_tokens": 6_000, "chat_max_output_tokens": 512}
    async with running_api(postgres_dsn, redis_dsn, chat_summaries=False, **small) as api:
        yield api


async def test_no_summary_is_made_or_used(api: RunningApi) -> None:
    session = await api.new_session()
    for turn in range(5):
        await api.say(session, f"{turn} {'word ' * 440}\n/say ok")
    insert = "INSERT INTO summaries (session_id, through, text, calls, messages) VALUES ($1, 4, 'In short.', '{}', 4)"
    async with api.resources.database.connection() as c:
        assert await c.fetchval("SELECT count(*) FROM summaries WHERE session_id = $1", session) == 0
        await c.execute(insert, session)
    assert "data-summary" not in [chunk["type"] for chunk in (await api.say(session, "and?\n/say ok")).chunks]

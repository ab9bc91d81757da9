"""A turn asks Postgres few times: each statement is a round trip, and a tenth of a millisecond of three processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from backend.config import load_settings
from backend.ids import new_session_id
from backend.resources import open_resources
from tests.integration.test_executor import ApiSide, working

MOST = 15
"""Statements about one session or its tasks while a turn is accepted, run and read, without those of the search.

A first turn has 11 and a later one 13. The readers' side may look at the task's row meanwhile, and the title of a first
turn may be stored during the second one.
"""


async def test_a_turn_asks_postgres_few_times(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def noted(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(self: asyncpg.Connection, query: str, *arguments: Any, **options: Any) -> Any:
            asked.append((" ".join(query.split()), arguments))
            return await method(self, query, *arguments, **options)

        return call

    for name in ("fetch", "fetchrow", "fetchval", "execute"):
        monkeypatch.setattr(asyncpg.Connection, name, noted(getattr(asyncpg.Connection, name)))
    settings = load_settings(files=(), database_url=postgres_dsn, redis_url=redis_dsn, queue="redis")
    async with open_resources(settings) as resources, working(settings):
        api_side = ApiSide(resources, settings)
        session = new_session_id()
        for place in (new_session_id(), session, session):
            del asked[:]
            task = await api_side.ask("/say yes", place)
            await api_side.read(task)
            about = [
                query for query, arguments in asked if {place, task.id} & {a for a in arguments if isinstance(a, str)}
            ]
            about = [query for query in about if "searched_sequence" not in query]
            assert len(about) <= MOST, "\n".join(query[:150] for query in about)

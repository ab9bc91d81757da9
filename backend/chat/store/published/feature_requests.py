"""Wishes for the product, which users have told. All signed-in users of the deployment may find them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from backend.chat.store.library import words_in
from backend.errors import TooManyFeatureRequests
from backend.ids import UserId
from backend.postgres import Connection, containing

MOST_OF_USER = 100


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    id: str
    title: str
    description: str
    created_at: datetime


_FIND = "SELECT id, title, description, created_at FROM feature_requests WHERE key = $1"
_LOCK = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_COUNT = "SELECT count(*) FROM feature_requests WHERE user_id = $1"
_CREATE = """
INSERT INTO feature_requests (id, user_id, key, title, description) VALUES ($1, $2, $3, $4, $5)
RETURNING id, title, description, created_at"""
_LOCKS = 7_273_016
"""The class of the advisory locks that create_request takes, one for each user."""


async def create_request(c: Connection, user_id: UserId, key: str, title: str, description: str) -> FeatureRequest:
    """Stores a request. The same key stores it once. Raises TooManyFeatureRequests if the user has MOST_OF_USER."""
    async with c.transaction():
        await c.execute(_LOCK, _LOCKS, user_id)
        row = await c.fetchrow(_FIND, key)
        if row is None:
            if await c.fetchval(_COUNT, user_id) >= MOST_OF_USER:
                raise TooManyFeatureRequests
            row = await c.fetchrow(_CREATE, str(uuid.uuid4()), user_id, key, title, description)
    assert row is not None
    return FeatureRequest(**row)


_SEARCH = """
SELECT id, title, description, created_at FROM feature_requests CROSS JOIN LATERAL (
  SELECT sum(CASE WHEN title ILIKE word THEN 2 WHEN description ILIKE word THEN 1 ELSE 0 END) AS score
  FROM unnest($1::text[]) AS word) AS fit
WHERE score > 0 ORDER BY score DESC, created_at DESC, id LIMIT $2"""


async def search_requests(c: Connection, query: str, limit: int) -> list[FeatureRequest]:
    """Returns up to `limit` requests that have words of a text in their title or description, best first."""
    words = [containing(word) for word in words_in(query)]
    return [FeatureRequest(**row) for row in await c.fetch(_SEARCH, words, limit)]


_FORGET = "DELETE FROM feature_requests WHERE user_id = $1"


async def forget_user(c: Connection, user_id: UserId) -> None:
    """Deletes the requests of a user."""
    await c.execute(_FORGET, user_id)

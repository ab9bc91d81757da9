"""Agents that users have published: all signed-in users of the deployment may find them and copy them.

The id of a published agent is its library id. Others get the graph of the published version, with secrets redacted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backend.chat.models import Json
from backend.chat.protocol.agent_json import redacted, without_secrets
from backend.chat.store import library
from backend.chat.store.library import MAX_LISTED_DESCRIPTION, words_in
from backend.errors import AgentNotFound
from backend.ids import LibraryAgentId, UserId
from backend.postgres import Connection, Row, containing


@dataclass(frozen=True, slots=True)
class PublishedAgent:
    """A published agent. Long descriptions are cut (MAX_LISTED_DESCRIPTION). `mine`: the user who asks published it."""

    id: LibraryAgentId
    version: int
    name: str
    description: str
    published_at: datetime
    mine: bool


_COLUMNS = f"""
p.library_agent_id AS id, p.version, p.name, left(p.description, {MAX_LISTED_DESCRIPTION}) AS description,
p.published_at, a.user_id = $1 AS mine"""
_FROM = "FROM published_agents p JOIN library_agents a ON a.id = p.library_agent_id"
_PUBLISH = f"""
WITH p AS (
  INSERT INTO published_agents AS p (library_agent_id, version, name, description) VALUES ($2, $3, $4, $5)
  ON CONFLICT (library_agent_id) DO UPDATE SET version = excluded.version, name = excluded.name,
    description = excluded.description, published_at = CASE WHEN p.version = excluded.version THEN p.published_at
    ELSE now() END
  RETURNING *)
SELECT {_COLUMNS} FROM p JOIN library_agents a ON a.id = p.library_agent_id"""


async def publish(c: Connection, user_id: UserId, agent_id: str, version: int | None) -> PublishedAgent:
    """Publishes a version of the user's agent, by default the newest one, instead of one that is published already.

    Raises AgentNotFound.
    """
    async with c.transaction():
        agent = (await library.get_agent(c, user_id, agent_id)).agent
        found, graph = await library.get_version(c, user_id, agent.id, version or agent.version)
        shown = redacted(graph)
        texts = str(shown.get("name") or agent.name), str(shown.get("description") or "")
        row = await c.fetchrow(_PUBLISH, user_id, agent.id, found.version, *texts)
    assert row is not None
    return _parse(row)


_UNPUBLISH = """
DELETE FROM published_agents p USING library_agents a
WHERE a.id = p.library_agent_id AND a.user_id = $1 AND (a.id = $2 OR a.graph_id = $2)"""


async def unpublish(c: Connection, user_id: UserId, agent_id: str) -> None:
    """Takes the publication of the user's agent back. Copies stay. It need not be published. Raises AgentNotFound."""
    await library.graph_id_of(c, user_id, agent_id)
    await c.execute(_UNPUBLISH, user_id, agent_id)


_LISTED = "WHERE $2::text IS NULL OR p.name ILIKE $2 OR p.description ILIKE $2"
_COUNT = f"SELECT count(*) {_FROM} {_LISTED.replace('$2', '$1')}"
_LIST = f"SELECT {_COLUMNS} {_FROM} {_LISTED} ORDER BY p.published_at DESC, p.library_agent_id LIMIT $3 OFFSET $4"


async def list_published(
    c: Connection, user_id: UserId, *, limit: int, offset: int, query: str | None
) -> tuple[list[PublishedAgent], int]:
    """Returns a page of the published agents, newest first, and their number. `query` is as in `list_agents`."""
    pattern = containing(query) if query else None
    total: int = await c.fetchval(_COUNT, pattern)
    rows = await c.fetch(_LIST, user_id, pattern, limit, offset) if offset < total else []
    return [_parse(row) for row in rows], total


_SEARCH = f"""
SELECT {_COLUMNS} {_FROM} CROSS JOIN LATERAL (
  SELECT sum(CASE WHEN p.name ILIKE word THEN 2 WHEN p.description ILIKE word THEN 1 ELSE 0 END) AS score
  FROM unnest($2::text[]) AS word) AS fit
WHERE score > 0 ORDER BY score DESC, p.published_at DESC, p.library_agent_id LIMIT $3"""


async def find_published(c: Connection, user_id: UserId, query: str, limit: int) -> list[PublishedAgent]:
    """Returns up to `limit` published agents that match a text, best first, by the points of `library.find_agents`."""
    words = [containing(word) for word in words_in(query)]
    return [_parse(row) for row in await c.fetch(_SEARCH, user_id, words, limit)]


_GET = f"""
SELECT {_COLUMNS}, v.graph {_FROM}
JOIN agent_versions v ON v.library_agent_id = p.library_agent_id AND v.version = p.version
WHERE p.library_agent_id = $2"""


async def get_published(c: Connection, user_id: UserId, agent_id: str) -> tuple[PublishedAgent, dict[str, Json]]:
    """Returns a published agent with its graph `without_secrets`. Raises AgentNotFound."""
    row = await c.fetchrow(_GET, user_id, agent_id)
    if row is None:
        raise AgentNotFound
    return _parse(row), without_secrets(row["graph"])


_VERSION = "SELECT version FROM published_agents WHERE library_agent_id = $1"


async def published_version(c: Connection, agent_id: LibraryAgentId) -> int | None:
    """Returns the version of an agent that is published, or None."""
    version: int | None = await c.fetchval(_VERSION, agent_id)
    return version


def _parse(row: Row) -> PublishedAgent:
    names = ("id", "version", "name", "description", "published_at", "mine")
    return PublishedAgent(**{name: row[name] for name in names})

"""The library: agents of users, each with all of its versions.

An agent is reached by its user alone, by its id in the library or by the id in its graph (its library's id goes first);
"not yours" and "not there" are the same AgentNotFound. Versions are dense from 1 and never change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from backend.chat.agent_json import AgentGraph
from backend.chat.models import Json
from backend.errors import AgentNotFound
from backend.ids import GraphId, LibraryAgentId, TaskId, UserId, new_library_agent_id
from backend.postgres import Connection, Row, containing

MAX_WORDS = 20
_WORD = re.compile("[^\\s\x00\ud800-\udfff]+")  # without what no text in Postgres holds
_COLUMNS = "id, graph_id, name, description, version, created_at, updated_at"
_VERSION_COLUMNS = "version, task_id, created_at"

# The clock, not now(): who waited here for another save comes after it also in time.
_SAVE = f"""
INSERT INTO library_agents AS a (id, user_id, graph_id, name, description, version) VALUES ($1, $2, $3, $4, $5, 1)
ON CONFLICT (user_id, graph_id) DO UPDATE
SET name = excluded.name, description = excluded.description, version = a.version + 1, updated_at = clock_timestamp()
RETURNING {_COLUMNS}"""

_SAVE_VERSION = """
INSERT INTO agent_versions (library_agent_id, version, graph, task_id, created_at) VALUES ($1, $2, $3, $4, $5)"""

_FIND = f"""
SELECT {_COLUMNS} FROM library_agents WHERE user_id = $1 AND (id = $2 OR graph_id = $2) ORDER BY id = $2 DESC LIMIT 1"""

_GRAPH = f"SELECT {_VERSION_COLUMNS}, graph FROM agent_versions WHERE library_agent_id = $1 AND version = $2"

_LISTED = """
FROM library_agents WHERE user_id = $1 AND ($2::text IS NULL OR name ILIKE $2 OR description ILIKE $2)"""
_COUNT = f"SELECT count(*) {_LISTED}"
_LIST = f"SELECT {_COLUMNS} {_LISTED} ORDER BY updated_at DESC, id LIMIT $3 OFFSET $4"

_SEARCH = f"""
SELECT {_COLUMNS} FROM library_agents a CROSS JOIN LATERAL (
  SELECT sum(CASE WHEN a.name ILIKE word THEN 2 WHEN a.description ILIKE word THEN 1 ELSE 0 END) AS score,
         a.id = ANY($3::text[]) OR a.graph_id = ANY($3::text[]) AS named
  FROM unnest($2::text[]) AS word) AS fit
WHERE user_id = $1 AND (named OR score > 0) ORDER BY named DESC, score DESC, updated_at DESC, id LIMIT $4"""

_VERSIONS = f"""
SELECT {_VERSION_COLUMNS} FROM agent_versions WHERE library_agent_id = $1 ORDER BY version DESC LIMIT $2 OFFSET $3"""

_DELETE = "DELETE FROM library_agents WHERE user_id = $1 AND id = $2 RETURNING 1"


@dataclass(frozen=True, slots=True)
class LibraryAgent:
    """An agent as its newest version names it. `version` is the number of that one, and of how many there are."""

    id: LibraryAgentId
    graph_id: GraphId
    name: str
    description: str
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def library_link(self) -> str:
        return f"/library/agents/{self.id}"

    @property
    def page_link(self) -> str:
        """Where the agent is opened in the builder."""
        return f"/build?flowID={quote(self.graph_id, safe='')}"


@dataclass(frozen=True, slots=True)
class SavedAgent:
    """An agent with the graph of its newest version."""

    agent: LibraryAgent
    graph: dict[str, Json]


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """One version without its graph. `task_id` is what made it, a note: the task may be gone."""

    version: int
    task_id: TaskId | None
    created_at: datetime


async def save_agent(c: Connection, user_id: UserId, graph: AgentGraph, *, task_id: TaskId | None) -> SavedAgent:
    """Saves all or nothing: a new agent, or the next version when the user has one with that graph id.

    Of two at once the second waits until the first's transaction ends. In a transaction it is a savepoint.
    """
    async with c.transaction():
        row = await c.fetchrow(_SAVE, new_library_agent_id(), user_id, graph.id, graph.name, graph.description)
        assert row is not None
        agent = _parse_agent(row)
        document = graph.numbered(agent.version)
        await c.execute(_SAVE_VERSION, agent.id, agent.version, document, task_id, agent.updated_at)
    return SavedAgent(agent, document)


async def get_agent(c: Connection, user_id: UserId, agent_id: str) -> SavedAgent:
    """Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    row = await c.fetchrow(_GRAPH, agent.id, agent.version)
    if row is None:  # deleted this moment
        raise AgentNotFound
    return SavedAgent(agent, row["graph"])


async def list_agents(
    c: Connection, user_id: UserId, *, limit: int, offset: int, query: str | None
) -> tuple[list[LibraryAgent], int]:
    """A page of the user's agents, last saved first, and how many there are. `query` is found literally in names and
    descriptions."""
    pattern = containing(query) if query else None
    total: int = await c.fetchval(_COUNT, user_id, pattern)
    rows = await c.fetch(_LIST, user_id, pattern, limit, offset) if offset < total else []
    return [_parse_agent(row) for row in rows], total


async def find_agents(c: Connection, user_id: UserId, query: str, limit: int) -> list[LibraryAgent]:
    """The user's agents that fit, best first: those that the query names by id, then those with most of its words in
    their name or description. Any text may be asked for."""
    words = _WORD.findall(query)[:MAX_WORDS]
    ids = [*words, " ".join(words)]
    rows = await c.fetch(_SEARCH, user_id, [containing(word) for word in words], ids, limit)
    return [_parse_agent(row) for row in rows]


async def agent_versions(
    c: Connection, user_id: UserId, agent_id: str, *, limit: int, offset: int
) -> tuple[list[AgentVersion], int]:
    """A page of an agent's versions, newest first, and how many there are. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    rows = await c.fetch(_VERSIONS, agent.id, limit, offset)
    return [_parse_version(row) for row in rows], agent.version


async def get_version(
    c: Connection, user_id: UserId, agent_id: str, version: int
) -> tuple[AgentVersion, dict[str, Json]]:
    """One version and its graph. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    row = await c.fetchrow(_GRAPH, agent.id, version)
    if row is None:
        raise AgentNotFound
    return _parse_version(row), row["graph"]


async def delete_agent(c: Connection, user_id: UserId, agent_id: str) -> None:
    """Deletes the agent with all its versions. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    if await c.fetchval(_DELETE, user_id, agent.id) is None:
        raise AgentNotFound


async def _get(c: Connection, user_id: UserId, agent_id: str) -> LibraryAgent:
    row = await c.fetchrow(_FIND, user_id, agent_id)
    if row is None:
        raise AgentNotFound
    return _parse_agent(row)


def _parse_agent(row: Row) -> LibraryAgent:
    return LibraryAgent(
        id=LibraryAgentId(row["id"]),
        graph_id=GraphId(row["graph_id"]),
        name=row["name"],
        description=row["description"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _parse_version(row: Row) -> AgentVersion:
    task_id: str | None = row["task_id"]
    return AgentVersion(row["version"], None if task_id is None else TaskId(task_id), row["created_at"])

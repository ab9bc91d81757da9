"""The library: the agents of each user, with all of their versions.

Only its user can access an agent, by its id in the library or by the id in its graph. If an id fits two agents, it
means the one with this library id. AgentNotFound does not tell an agent of another user from a missing one. Versions
are numbered from 1 without gaps and never change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from backend.chat.models import Json
from backend.chat.protocol.agent_json import AgentGraph, parse_agent
from backend.errors import AgentNotFound, TooManyAgents
from backend.ids import GraphId, LibraryAgentId, TaskId, UserId, new_library_agent_id
from backend.postgres import Connection, Row, containing

MAX_WORDS = 20
"""Words of a search that count; the rest is ignored."""
MAX_LISTED_DESCRIPTION = 1_000
"""Characters of an agent's description in a list; the agent itself has the whole."""
_WORD = re.compile("[^\\s\x00\ud800-\udfff]+")  # without the characters that Postgres cannot store
_COLUMNS = "id, graph_id, name, description, version, created_at, updated_at"
_VERSION_COLUMNS = "version, task_id, created_at"

_GRAPH = f"SELECT {_VERSION_COLUMNS}, graph FROM agent_versions WHERE library_agent_id = $1 AND version = $2"


@dataclass(frozen=True, slots=True)
class LibraryAgent:
    """An agent, with the name and the description of its newest version. `version` is the number of that version, and
    so the number of versions. No column may be NULL.
    """

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
        """The address at which the builder opens the agent."""
        return f"/build?flowID={quote(self.graph_id, safe='')}"


@dataclass(frozen=True, slots=True)
class SavedAgent:
    """An agent with the graph of its newest version."""

    agent: LibraryAgent
    graph: dict[str, Json]


@dataclass(frozen=True, slots=True)
class RunnableAgent:
    """One version of an agent, with its graph, as it is about to run."""

    id: LibraryAgentId
    graph_id: GraphId
    name: str
    version: int
    graph: dict[str, Json]


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """One version without its graph. `task_id` is the task that made it, which may be gone. NULL if no task made it."""

    version: int
    task_id: TaskId | None
    created_at: datetime


# clock_timestamp(), not now(): a save that waited here for another one gets a later time than that one.
_SAVE = f"""
INSERT INTO library_agents AS a (id, user_id, graph_id, name, description, version) VALUES ($1, $2, $3, $4, $5, 1)
ON CONFLICT (user_id, graph_id) DO UPDATE
SET name = excluded.name, description = excluded.description, version = a.version + 1, updated_at = clock_timestamp()
RETURNING {_COLUMNS}"""
_SAVE_VERSION = """
INSERT INTO agent_versions (library_agent_id, version, graph, task_id, created_at) VALUES ($1, $2, $3, $4, $5)"""


_AGENT_LOCKS = 7_273_004
"""The class of the advisory locks that save_agent takes, one for each user."""
_LOCK_LIBRARY = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_OTHERS = "SELECT count(*) FROM library_agents WHERE user_id = $1 AND graph_id <> $2"
_IS_NEW = "SELECT NOT EXISTS (SELECT 1 FROM library_agents WHERE user_id = $1 AND graph_id = $2)"


async def save_agent(
    c: Connection, user_id: UserId, graph: AgentGraph, *, task_id: TaskId | None, most: int = 2**31
) -> SavedAgent:
    """Saves a new agent, or the next version if the user has an agent with this graph id. Saves all or nothing.

    If another transaction saves an agent of the user, this call waits until that one ends. Inside a transaction it is a
    savepoint. Raises TooManyAgents for a new agent if the user has `most`.
    """
    async with c.transaction():
        await c.execute(_LOCK_LIBRARY, _AGENT_LOCKS, user_id)
        if await c.fetchval(_IS_NEW, user_id, graph.id) and await c.fetchval(_OTHERS, user_id, graph.id) >= most:
            raise TooManyAgents(f"The library has {most} agents, which is the limit. Delete one first.")
        row = await c.fetchrow(_SAVE, new_library_agent_id(), user_id, graph.id, graph.name, graph.description)
        assert row is not None
        agent = _parse_agent(row)
        document = graph.numbered(agent.version)
        await c.execute(_SAVE_VERSION, agent.id, agent.version, document, task_id, agent.updated_at)
    return SavedAgent(agent, document)


async def get_agent(c: Connection, user_id: UserId, agent_id: str) -> SavedAgent:
    """Returns an agent with its newest graph. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    row = await c.fetchrow(_GRAPH, agent.id, agent.version)
    if row is None:  # deleted between the two statements
        raise AgentNotFound
    return SavedAgent(agent, row["graph"])


_LISTED = """
FROM library_agents WHERE user_id = $1 AND ($2::text IS NULL OR name ILIKE $2 OR description ILIKE $2)"""
_COUNT = f"SELECT count(*) {_LISTED}"
_BRIEF_COLUMNS = _COLUMNS.replace("description", f"left(description, {MAX_LISTED_DESCRIPTION}) AS description")
_LIST = f"SELECT {_BRIEF_COLUMNS} {_LISTED} ORDER BY updated_at DESC, id LIMIT $3 OFFSET $4"


async def list_agents(
    c: Connection, user_id: UserId, *, limit: int, offset: int, query: str | None
) -> tuple[list[LibraryAgent], int]:
    """Returns a page of the user's agents, last saved first, and how many there are in all.

    With `query`, counts and returns only agents whose name or description contains this text, ignoring case. Long
    descriptions are cut (MAX_LISTED_DESCRIPTION).
    """
    pattern = containing(query) if query else None
    total: int = await c.fetchval(_COUNT, user_id, pattern)
    rows = await c.fetch(_LIST, user_id, pattern, limit, offset) if offset < total else []
    return [_parse_agent(row) for row in rows], total


_SEARCH = f"""
SELECT {_COLUMNS} FROM library_agents a CROSS JOIN LATERAL (
  SELECT sum(CASE WHEN a.name ILIKE word THEN 2 WHEN a.description ILIKE word THEN 1 ELSE 0 END) AS score,
         a.id = ANY($3::text[]) OR a.graph_id = ANY($3::text[]) AS named
  FROM unnest($2::text[]) AS word) AS fit
WHERE user_id = $1 AND (named OR score > 0) ORDER BY named DESC, score DESC, updated_at DESC, id LIMIT $4"""


def words_in(query: str) -> list[str]:
    """Returns the words of a search that count."""
    return _WORD.findall(query)[:MAX_WORDS]


async def find_agents(c: Connection, user_id: UserId, query: str, limit: int) -> list[LibraryAgent]:
    """Returns up to `limit` of the user's agents that match a text, best first.

    Agents whose id is in the text come first. The others are ordered by their points: two for each word of the text
    that is in the name, one for each that is only in the description. `query` may be any text.
    """
    words = words_in(query)
    ids = [*words, " ".join(words)]
    rows = await c.fetch(_SEARCH, user_id, [containing(word) for word in words], ids, limit)
    return [_parse_agent(row) for row in rows]


_VERSIONS = f"""
SELECT {_VERSION_COLUMNS} FROM agent_versions WHERE library_agent_id = $1 ORDER BY version DESC LIMIT $2 OFFSET $3"""


async def agent_versions(
    c: Connection, user_id: UserId, agent_id: str, *, limit: int, offset: int
) -> tuple[list[AgentVersion], int]:
    """Returns a page of an agent's versions, newest first, and how many there are in all. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    rows = await c.fetch(_VERSIONS, agent.id, limit, offset)
    return [_parse_version(row) for row in rows], agent.version


async def get_version(
    c: Connection, user_id: UserId, agent_id: str, version: int
) -> tuple[AgentVersion, dict[str, Json]]:
    """Returns one version and its graph. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    row = await c.fetchrow(_GRAPH, agent.id, version)
    if row is None:
        raise AgentNotFound
    return _parse_version(row), row["graph"]


_RUNNABLE = """
SELECT version, graph FROM agent_versions
WHERE library_agent_id = $1 AND (CASE WHEN $2::int IS NULL THEN graph->>'is_active' IS DISTINCT FROM 'false'
  ELSE version = $2 END) ORDER BY version DESC LIMIT 1"""


async def runnable_agent(c: Connection, user_id: UserId, agent_id: str, version: int | None) -> RunnableAgent:
    """Returns a version of an agent, by default the newest one that is active. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    row = await c.fetchrow(_RUNNABLE, agent.id, version)
    if row is None:
        raise AgentNotFound
    return RunnableAgent(agent.id, agent.graph_id, str(row["graph"].get("name") or agent.name), *row.values())


async def restore_version(c: Connection, user_id: UserId, agent_id: str, version: int) -> SavedAgent:
    """Saves the graph of an earlier version as the newest one, which undoes all later changes. Raises AgentNotFound.

    Saves nothing if the newest version has this graph already, so a repeated call changes nothing.
    """
    async with c.transaction():
        await c.execute(_LOCK_LIBRARY, _AGENT_LOCKS, user_id)
        newest = await get_agent(c, user_id, agent_id)
        _, document = await get_version(c, user_id, newest.agent.id, version)
        graph = parse_agent(document, graph_id=newest.agent.graph_id)
        if graph.numbered(newest.agent.version) == newest.graph:
            return newest
        return await save_agent(c, user_id, graph, task_id=None)


async def graph_id_of(c: Connection, user_id: UserId, agent_id: str) -> GraphId:
    """Returns the id of an agent's graph, by which the agent platform knows it. Raises AgentNotFound."""
    return (await _get(c, user_id, agent_id)).graph_id


_DELETE = "DELETE FROM library_agents WHERE user_id = $1 AND id = $2 RETURNING 1"


async def delete_agent(c: Connection, user_id: UserId, agent_id: str) -> None:
    """Deletes an agent with all its versions. Raises AgentNotFound."""
    agent = await _get(c, user_id, agent_id)
    if await c.fetchval(_DELETE, user_id, agent.id) is None:
        raise AgentNotFound


_FIND = f"""
SELECT {_COLUMNS} FROM library_agents WHERE user_id = $1 AND (id = $2 OR graph_id = $2) ORDER BY id = $2 DESC LIMIT 1"""


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

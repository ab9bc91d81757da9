"""The graphs of users, by id and version."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import orjson

from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.database import Connection, Database
from examples.agent_platform.graph import Graph
from examples.agent_platform.options import Limits
from examples.agent_platform.problems import Problem, not_found
from examples.agent_platform.validation import InvalidGraph, parse_graph

LATEST_VERSION = 2**31 - 1


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """A version of a user's graph. `webhook` is the secret name of its webhook."""

    user_id: str
    graph_id: str
    version: int
    graph: Graph
    webhook: str

    def as_json(self) -> dict[str, Any]:
        trigger = self.graph.trigger
        return {
            "id": self.graph_id,
            "version": self.version,
            "input_schema": self.graph.input_schema,
            "output_schema": self.graph.output_schema,
            "trigger": trigger,
            "webhook_path": f"/webhooks/{self.webhook}" if trigger == "webhook" else None,
        }


class Graphs:
    """Every read and write belongs to one user; another user's graph is as good as none."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    def parse(self, document: Any) -> Graph:
        """Returns the graph. Raises Problem: 422 invalid_graph."""
        try:
            return parse_graph(document, BLOCKS, self._limits)
        except InvalidGraph as error:
            details = [problem.as_json() for problem in error.problems]
            raise Problem(422, "invalid_graph", f"This agent cannot run. {error}"[:1_000], details) from None

    async def put(self, user_id: str, graph_id: str, version: int, document: dict[str, Any]) -> StoredGraph:
        """Stores a version. The same document again changes nothing. Raises Problem: 409, 422, 429."""
        graph = self.parse(document)
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()

        def act(c: Connection) -> str:
            one = (user_id, graph_id, version)
            found = c.execute(
                "SELECT document, webhook FROM graphs WHERE user_id = ? AND graph_id = ? AND version = ?", one
            ).fetchone()
            if found is not None:
                if found["document"] != text:
                    raise Problem(409, "conflict", "This version of the agent has other contents.")
                return str(found["webhook"])
            (count,) = c.execute("SELECT count(*) FROM graphs WHERE user_id = ?", [user_id]).fetchone()
            if count >= self._limits.graphs_of_user:
                raise Problem(409, "conflict", f"A user may have at most {count} versions of agents.")
            webhook = secrets.token_urlsafe(24)
            c.execute("INSERT INTO graphs VALUES (?, ?, ?, ?, ?)", [*one, text, webhook])
            return webhook

        return StoredGraph(user_id, graph_id, version, graph, await self._database.transact(act))

    async def get(self, user_id: str, graph_id: str, version: int) -> StoredGraph:
        """Returns a version. Raises Problem: 404."""
        return await self._one("user_id = ? AND graph_id = ? AND version = ?", [user_id, graph_id, version], "agent")

    async def get_by_webhook(self, webhook: str) -> StoredGraph:
        """Returns the version with this webhook. Raises Problem: 404."""
        stored = await self._one("webhook = ?", [webhook], "webhook")
        if stored.graph.trigger != "webhook":
            raise not_found("webhook")
        return stored

    async def forget(self, user_id: str, graph_id: str | None) -> None:
        """Deletes all versions of a graph with its schedules and stored values, or all of a user."""

        def act(c: Connection) -> None:
            for table in ("schedules", "graphs", "stored_values"):
                condition = "user_id = ? AND graph_id = coalesce(?, graph_id)"
                c.execute(f"DELETE FROM {table} WHERE {condition}", [user_id, graph_id])  # noqa: S608 - constants
            if graph_id is None:
                c.execute("DELETE FROM calls WHERE user_id = ?", [user_id])

        await self._database.transact(act)

    async def _one(self, condition: str, values: list[Any], what: str) -> StoredGraph:
        def act(c: Connection) -> Any:
            return c.execute(f"SELECT * FROM graphs WHERE {condition}", values).fetchone()  # noqa: S608 - a constant

        row = await self._database.transact(act)
        if row is None:
            raise not_found(what)
        graph = self.parse(orjson.loads(row["document"]))
        return StoredGraph(row["user_id"], row["graph_id"], row["version"], graph, row["webhook"])

"""The runs of graphs: what they were started with, how far they came, and how they ended."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson

from examples.agent_platform.database import Connection, Database
from examples.agent_platform.execution import NodeResult, NodeStatus, Outcome
from examples.agent_platform.options import Limits
from examples.agent_platform.problems import Problem, not_found, too_many

MAX_ERROR = 10_000  # characters
MAX_LISTED = 16_384  # characters of the JSON of an output in a list of runs


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Operation:
    """The operation of the caller that waits for the end of a run."""

    id: str
    task_id: str | None = None
    callback_url: str | None = None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to start. The same key starts it once."""

    user_id: str
    graph_id: str
    version: int
    node_input: Mapping[str, Any]
    payload: Any = None
    key: str | None = None
    operation: Operation | None = None

    @property
    def fingerprint(self) -> str:
        parts = [self.graph_id, self.version, self.node_input, self.payload, self._operation_json]
        return sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def _operation_json(self) -> dict[str, str | None] | None:
        return asdict(self.operation) if self.operation is not None else None

    def row(self, id: str) -> list[Any]:
        operation = self.operation
        told = operation is None or operation.callback_url is None
        return [
            id, self.user_id, self.graph_id, self.version, _json(self.node_input), _json(self.payload),
            RunStatus.QUEUED, _now(), self.key, self.fingerprint,
            _json(self._operation_json) if operation is not None else None, told,
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    user_id: str
    graph_id: str
    version: int
    node_input: Mapping[str, Any]
    payload: Any
    status: RunStatus
    started_at: str
    ended_at: str | None
    output: dict[str, list[Any]] | None
    error: str | None
    operation: Operation | None

    def as_json(self) -> dict[str, Any]:
        return {
            "execution_id": self.id,
            "graph_id": self.graph_id,
            "version": self.version,
            "status": self.status,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "output": self.output,
            "error": self.error,
            "operation_id": self.operation.id if self.operation is not None else None,
        }

    @property
    def completion(self) -> dict[str, Any]:
        """The document of the callback."""
        result = {"execution_id": self.id, "status": self.status, "output": self.output}
        completion = {"success": self.status is RunStatus.COMPLETED, "result": result}
        if self.status is not RunStatus.COMPLETED:
            completion["error"] = (self.error or "the run was cancelled")[:MAX_ERROR]
        if self.operation is not None:
            completion["operation_id"] = self.operation.id
        return completion


@dataclass(frozen=True, slots=True)
class Progress:
    """The nodes of a run: those that have ended, and those that were begun."""

    ended: dict[str, NodeResult] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)


class Runs:
    """Users see only their own runs. What has ended never changes."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits

    async def create(self, new: NewRun) -> tuple[Run, bool]:
        """Returns the run, and True if it is new: a key starts one run. Raises Problem: 409, 429."""

        def act(c: Connection) -> tuple[Run, bool]:
            found = _find(c, "user_id = ? AND key = ?", [new.user_id, new.key]) if new.key is not None else None
            if found is not None:
                if found["fingerprint"] != new.fingerprint:
                    raise Problem(409, "conflict", "This idempotency key was used for another request.")
                return _run(found), False
            self._check_room(c, new.user_id)
            id = str(uuid.uuid4())
            c.execute(
                "INSERT INTO runs (id, user_id, graph_id, version, node_input, payload, status, started_at, key,"
                " fingerprint, operation, told) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                new.row(id),
            )
            c.execute(
                "DELETE FROM runs WHERE user_id = ?1 AND ended_at IS NOT NULL AND told = 1 AND number <="
                " (SELECT number FROM runs WHERE user_id = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
                [new.user_id, self._limits.runs_kept_of_user],
            )
            return _run(_find(c, "id = ?", [id])), True

        return await self._database.transact(act)

    def _check_room(self, c: Connection, user_id: str) -> None:
        (waiting,) = c.execute("SELECT count(*) FROM runs WHERE ended_at IS NULL").fetchone()
        (of_user,) = c.execute("SELECT count(*) FROM runs WHERE ended_at IS NULL AND user_id = ?", [user_id]).fetchone()
        if waiting >= self._limits.runs_waiting or of_user >= self._limits.runs_of_user:
            raise too_many("Too many runs have not ended yet. Please retry later.")

    async def get(self, user_id: str, graph_id: str, id: str) -> Run:
        """Returns a run of the user. Raises Problem: 404."""
        values = [id, user_id, graph_id]
        row = await self._database.transact(lambda c: _find(c, "id = ? AND user_id = ? AND graph_id = ?", values))
        if row is None:
            raise not_found("execution")
        return _run(row)

    async def newest(self, user_id: str, graph_id: str, limit: int) -> list[Run]:
        """Returns the newest runs of a graph, without their inputs, and without outputs above MAX_LISTED."""

        def act(c: Connection) -> list[Run]:
            statement = (
                "SELECT id, user_id, graph_id, version, '{}' AS node_input, 'null' AS payload, status, started_at,"
                " ended_at, iif(length(output) <= ?, output, NULL) AS output, error, operation"
                " FROM runs WHERE user_id = ? AND graph_id = ? ORDER BY number DESC LIMIT ?"
            )
            return [_run(row) for row in c.execute(statement, [MAX_LISTED, user_id, graph_id, limit])]

        return await self._database.transact(act)

    async def unended(self) -> list[Run]:
        """Returns the runs that have not ended, oldest first."""
        return await self._all("ended_at IS NULL")

    async def unended_of(self, user_id: str, graph_id: str | None) -> list[Run]:
        """Returns those of a user, or of one graph."""
        values = [user_id, graph_id]
        return await self._all("ended_at IS NULL AND user_id = ? AND graph_id = coalesce(?, graph_id)", values)

    async def untold(self) -> list[str]:
        """Returns the ids of the runs that have ended, and whose end was not delivered yet, oldest first."""

        def act(c: Connection) -> list[str]:
            statement = "SELECT id FROM runs WHERE told = 0 AND ended_at IS NOT NULL ORDER BY number"
            return [row["id"] for row in c.execute(statement)]

        return await self._database.transact(act)

    async def find(self, id: str) -> Run | None:
        """Returns a run of any user. None if it has been deleted."""
        row = await self._database.transact(lambda c: _find(c, "id = ?", [id]))
        return None if row is None else _run(row)

    async def forget(self, user_id: str, graph_id: str | None) -> None:
        """Deletes the ended runs of a user, or those of one graph."""
        await self._execute(
            "DELETE FROM runs WHERE user_id = ? AND graph_id = coalesce(?, graph_id) AND ended_at IS NOT NULL",
            [user_id, graph_id],
        )

    async def _all(self, condition: str, values: Sequence[Any] = ()) -> list[Run]:
        def act(c: Connection) -> list[Run]:
            statement = f"SELECT * FROM runs WHERE {condition} ORDER BY number"  # noqa: S608 - a constant
            return [_run(row) for row in c.execute(statement, values)]

        return await self._database.transact(act)

    async def mark_told(self, id: str) -> None:
        await self._execute("UPDATE runs SET told = 1 WHERE id = ?", [id])

    async def begin(self, id: str) -> None:
        await self._execute("UPDATE runs SET status = ? WHERE id = ? AND ended_at IS NULL", [RunStatus.RUNNING, id])

    async def progress(self, id: str) -> Progress:
        def act(c: Connection) -> Progress:
            progress = Progress()
            for row in c.execute("SELECT * FROM run_nodes WHERE run_id = ? ORDER BY rowid", [id]):
                status = NodeStatus(row["status"])
                if status is NodeStatus.RUNNING:
                    progress.begun.add(row["node_id"])
                else:
                    outputs = orjson.loads(row["outputs"])
                    progress.ended[row["node_id"]] = NodeResult(status, outputs, row["error"])
            return progress

        return await self._database.transact(act)

    async def set_node(self, id: str, node_id: str, result: NodeResult) -> None:
        """Keeps how far a node has come, unless the run has ended."""
        await self._execute(
            "INSERT OR REPLACE INTO run_nodes SELECT ?, ?, ?, ?, ?"
            " WHERE EXISTS (SELECT 1 FROM runs WHERE id = ? AND ended_at IS NULL)",
            [id, node_id, result.status, _json(result.outputs), result.error, id],
        )

    async def end(self, id: str, outcome: Outcome) -> Run:
        """Ends a run, and its nodes under way, unless it has ended. Returns it."""
        status = RunStatus.COMPLETED if outcome.error is None else RunStatus.FAILED
        output = None if outcome.output is None else _json(outcome.output)
        return await self._end(id, status, output, outcome.error)

    async def cancel(self, id: str) -> Run:
        """Ends a run and its nodes under way as cancelled, unless it has ended. Returns it."""
        return await self._end(id, RunStatus.CANCELLED, None, None)

    async def _end(self, id: str, status: RunStatus, output: str | None, error: str | None) -> Run:
        def act(c: Connection) -> Run:
            changed = c.execute(
                "UPDATE runs SET status = ?, ended_at = ?, output = ?, error = ? WHERE id = ? AND ended_at IS NULL",
                [status, _now(), output, error, id],
            )
            if changed.rowcount:
                ended = NodeStatus.CANCELLED if status is RunStatus.CANCELLED else NodeStatus.FAILED
                c.execute(
                    "UPDATE run_nodes SET status = ? WHERE run_id = ? AND status = ?", [ended, id, NodeStatus.RUNNING]
                )
            return _run(_find(c, "id = ?", [id]))

        return await self._database.transact(act)

    async def _execute(self, statement: str, values: list[Any]) -> None:
        def act(c: Connection) -> None:
            c.execute(statement, values)

        await self._database.transact(act)


def _find(c: Connection, condition: str, values: list[Any]) -> Any:
    return c.execute(f"SELECT * FROM runs WHERE {condition}", values).fetchone()  # noqa: S608 - a constant


def _run(row: Any) -> Run:
    operation = orjson.loads(row["operation"]) if row["operation"] else None
    return Run(
        row["id"], row["user_id"], row["graph_id"], row["version"], orjson.loads(row["node_input"]),
        orjson.loads(row["payload"]), RunStatus(row["status"]), row["started_at"], row["ended_at"],
        orjson.loads(row["output"]) if row["output"] else None, row["error"],
        Operation(**operation) if operation else None,
    )  # fmt: skip


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

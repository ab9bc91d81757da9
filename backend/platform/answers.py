"""The answers of the agent platform as values, and the readers of its JSON. Any other answer raises PlatformFailure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from backend.chat.models import Json
from backend.platform.cron_words import cron_in_words
from backend.platform.failures import Failure, PlatformFailure

MAX_TEXT_CHARS = 2_000
"""Longer descriptions and errors are cut."""
MAX_BLOCKS, MAX_NODES, MAX_SCHEDULES = 5_000, 2_000, 1_000
"""The most that one answer may list."""
_Value = TypeVar("_Value")


class BlockKind(StrEnum):
    ACTION = "action"
    INPUT = "input"
    OUTPUT = "output"
    TRIGGER = "trigger"


@dataclass(frozen=True, slots=True)
class Block:
    """A block. `idempotent`: a second run has no further effect."""

    id: str
    name: str
    description: str
    categories: tuple[str, ...]
    input_schema: dict[str, Json]
    output_schema: dict[str, Json]
    idempotent: bool
    kind: BlockKind


@dataclass(frozen=True, slots=True)
class Graph:
    """An agent that the platform can run. `trigger` is `webhook`, `schedule` or None."""

    input_schema: dict[str, Json]
    output_schema: dict[str, Json]
    trigger: str | None


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class NodeRun:
    """The state of one node of a run. `error` is None unless it has failed."""

    name: str
    status: str
    error: str | None

    def as_json(self) -> dict[str, Json]:
        return {"name": self.name, "status": self.status, **({} if self.error is None else {"error": self.error})}


@dataclass(frozen=True, slots=True)
class Run:
    """A run of an agent. `output` is None before its end, `error` unless it has failed. Lists of runs have no nodes.
    `version` is None if the platform does not say it.

    `operation_id` is None if it was not given, or if the platform does not say it.
    """

    id: str
    status: RunStatus
    started_at: str | None
    ended_at: str | None
    output: Json
    error: str | None
    nodes: tuple[NodeRun, ...]
    operation_id: str | None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule of an agent. `next_run_at` is None while it is paused."""

    id: str
    graph_id: str
    version: int
    name: str
    cron: str
    timezone: str
    inputs: dict[str, Json]
    paused: bool
    next_run_at: str | None

    def as_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "graph_id": self.graph_id,
            "version": self.version,
            "name": self.name,
            "cron": self.cron,
            "when": cron_in_words(self.cron),
            "timezone": self.timezone,
            "inputs": self.inputs,
            "paused": self.paused,
            "next_run_at": self.next_run_at,
        }


def read_blocks(document: Json) -> tuple[Block, ...]:
    """Reads the list of blocks. Raises PlatformFailure."""
    return tuple(_block(one) for one in _objects(document, "blocks", MAX_BLOCKS))


def _block(given: dict[str, Json]) -> Block:
    return Block(
        id=_text(given, "id"),
        name=_text(given, "name"),
        description=(_maybe(given, "description") or "")[:MAX_TEXT_CHARS],
        categories=tuple(_strings(given.get("categories"))),
        input_schema=_object(given, "inputSchema"),
        output_schema=_object(given, "outputSchema"),
        idempotent=given.get("idempotent") is True,
        kind=_one_of(BlockKind, given, "kind"),
    )


def read_block_output(document: Json) -> dict[str, Json]:
    """Reads the outputs of a block, a list of values for each name. Raises PlatformFailure."""
    return _as_object(document, "outputs")


def read_graph(document: Json) -> Graph:
    """Reads the answer to an upload. Raises PlatformFailure."""
    given = _as_object(document, "graph")
    return Graph(_object(given, "input_schema"), _object(given, "output_schema"), _maybe(given, "trigger"))


def read_run_id(document: Json) -> str:
    """Reads the id of a run that was begun. Raises PlatformFailure."""
    return _text(_as_object(document, "execution"), "id")


def read_run(document: Json) -> Run:
    """Reads the state of a run. Raises PlatformFailure."""
    given = _as_object(document, "execution")
    error = _maybe(given, "error")
    return Run(
        id=_text(given, "execution_id"),
        status=_one_of(RunStatus, given, "status"),
        started_at=_maybe(given, "started_at"),
        ended_at=_maybe(given, "ended_at"),
        output=given.get("output"),
        error=None if error is None else error[:MAX_TEXT_CHARS],
        nodes=tuple(_node(one) for one in _objects(given.get("nodes") or [], "nodes", MAX_NODES)),
        operation_id=_maybe(given, "operation_id"),
        version=version if isinstance(version := given.get("version"), int) else None,
    )


def read_runs(document: Json) -> tuple[Run, ...]:
    """Reads a list of runs, newest first. Raises PlatformFailure."""
    listed = _as_object(document, "executions").get("executions")
    return tuple(read_run(one) for one in _objects(listed, "executions", MAX_NODES))


def _node(given: dict[str, Json]) -> NodeRun:
    error = _maybe(given, "error")
    return NodeRun(
        name=(_maybe(given, "name") or _text(given, "node_id"))[:MAX_TEXT_CHARS],
        status=_text(given, "status"),
        error=None if error is None else error[:MAX_TEXT_CHARS],
    )


def read_schedules(document: Json) -> tuple[Schedule, ...]:
    """Reads a list of schedules. Raises PlatformFailure."""
    listed = _as_object(document, "schedules").get("schedules")
    return tuple(read_schedule(one) for one in _objects(listed, "schedules", MAX_SCHEDULES))


def read_schedule(document: Json) -> Schedule:
    """Reads one schedule. Raises PlatformFailure."""
    given = _as_object(document, "schedule")
    version = given.get("version")
    if not isinstance(version, int):
        raise _unreadable("version")
    return Schedule(
        id=_text(given, "id"),
        graph_id=_text(given, "graph_id"),
        version=version,
        name=_maybe(given, "name") or "",
        cron=_text(given, "cron"),
        timezone=_maybe(given, "timezone") or "UTC",
        inputs=_object(given, "node_input") if given.get("node_input") else {},
        paused=given.get("paused") is True,
        next_run_at=_maybe(given, "next_run_at"),
    )


def _strings(value: Json) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _objects(value: Json, name: str, most: int) -> list[dict[str, Json]]:
    if not isinstance(value, list) or len(value) > most or not all(isinstance(one, dict) for one in value):
        raise _unreadable(name)
    return value


def _object(given: dict[str, Json], name: str) -> dict[str, Json]:
    return _as_object(given.get(name), name)


def _as_object(value: Json, name: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _unreadable(name)
    return value


def _text(given: dict[str, Json], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise _unreadable(name)
    return value


def _maybe(given: dict[str, Json], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise _unreadable(name)
    return value


def _one_of(kind: type[_Value], given: dict[str, Json], name: str) -> _Value:
    try:
        return kind(given.get(name))  # type: ignore[call-arg]
    except ValueError:
        raise _unreadable(name) from None


def _unreadable(what: str) -> PlatformFailure:
    return PlatformFailure(Failure.INVALID_RESPONSE, note=what, sent=True)


def outcome_document(run: Run) -> dict[str, Any]:
    """Returns what the platform posts about this run when it has ended, so that both ways give the same outcome."""
    return {"execution_id": run.id, "status": run.status.value, "output": run.output}

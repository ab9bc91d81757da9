"""Bodies of requests and responses about runs and schedules of agents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.chat.models import Json
from backend.platform.answers import Run, RunStatus, Schedule

MOST_NODES = 200
"""Nodes of a run that are shown."""
_VERSION = "The version to run. Without it, the newest one that is active."
_Version = Annotated[int | None, Field(ge=1, le=2**31 - 1, description=_VERSION)]
_Inputs = Annotated[dict[str, Any], Field(description="The values of the agent's inputs, by name.")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class NewRun(_In):
    """The run to begin."""

    version: _Version = None
    inputs: _Inputs = {}


class NewSchedule(_In):
    """The schedule to make."""

    cron: Annotated[
        str, StringConstraints(min_length=1, max_length=200), Field(description="Minute hour day month weekday.")
    ]
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=100), Field(description="An IANA name.")] = (
        "UTC"
    )
    name: Annotated[str, StringConstraints(max_length=200), Field(description="By default the agent's name.")] = ""
    version: _Version = None
    inputs: _Inputs = {}


class ScheduleChanges(_In):
    """The changes to a schedule."""

    paused: bool


class RunInputs(_Out):
    """The inputs and outputs of a version of an agent. `property_order` has the names of the inputs in their order.

    `trigger` is null, `webhook` or `schedule`.
    """

    version: int
    input_schema: dict[str, Json]
    property_order: list[str]
    output_schema: dict[str, Json]
    trigger: str | None


class RunBegun(_Out):
    """A run that has begun. The same `Idempotency-Key` gives the same run."""

    execution_id: str
    version: int


class NodeOut(_Out):
    """A step of a run. `status` is `queued`, `running`, `completed`, `failed`, `skipped` or `cancelled`."""

    name: str
    status: str
    error: str | None


class RunSummary(_Out):
    """A run without its steps. `outputs` has a list of values for each name, and is null unless it has completed.

    In a list it may be null, too, if it is large.
    """

    execution_id: str
    version: int | None
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    started_at: str | None
    ended_at: str | None
    outputs: Json
    error: str | None

    @classmethod
    def of(cls, run: Run) -> RunSummary:
        return cls(**_members(run))


class RunOut(RunSummary):
    """A run with its steps, of which at most the first 200 are listed."""

    nodes: list[NodeOut]

    @classmethod
    def of(cls, run: Run) -> RunOut:
        nodes = [NodeOut(name=node.name, status=node.status, error=node.error) for node in run.nodes[:MOST_NODES]]
        return cls(**_members(run), nodes=nodes)


def _members(run: Run) -> dict[str, Any]:
    return {
        "execution_id": run.id,
        "version": run.version,
        "status": run.status.value,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "outputs": run.output if run.status is RunStatus.COMPLETED else None,
        "error": run.error,
    }


class RunList(_Out):
    runs: list[RunSummary]


class ScheduleOut(_Out):
    """A schedule. `when` is its cron expression in English words. `next_run_at` is null while it is paused. It keeps
    the version that it was made with.
    """

    id: str
    graph_id: str
    version: int
    name: str
    cron: str
    when: str
    timezone: str
    inputs: dict[str, Json]
    paused: bool
    next_run_at: str | None

    @classmethod
    def of(cls, schedule: Schedule) -> ScheduleOut:
        return cls.model_validate(schedule.as_json())


class ScheduleList(_Out):
    schedules: list[ScheduleOut]

"""Runs of agents at the agent platform, as the work of operations."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backend.chat.models import Json
from backend.chat.outcomes import AGENT_PLATFORM, Operation, Outcome, Progress, RemoteTask
from backend.chat.store.remote_tasks import UNNAMED
from backend.ids import UserId
from backend.platform.answers import Run, RunStatus, outcome_document
from backend.platform.failures import Failure, PlatformFailure
from executor.tools.context import ToolContext
from executor.tools.remote_work import StillRunning

if TYPE_CHECKING:  # an executor without a platform starts faster without it
    from backend.platform.client import Platform

LEAST_PAUSE, LONGEST_PAUSE, GROWTH = 5.0, 60.0, 4.0
"""Seconds between two polls of a run: its age divided by GROWTH, within bounds."""
SLACK = 5.0
"""Seconds after which an executor asks for a run, counted from the end of what the turn itself waits for."""
MOST_MISSING = 1_000
"""Runs of which it is known since when the platform did not have them."""
MOST_SHOWN = 50
"""Nodes of a run in a response."""


class AgentRuns:
    """The agent platform as a server of work (`executor.tools.remote_work.WorkServer`)."""

    name = AGENT_PLATFORM
    can_tell = True

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._missing: dict[str, float] = {}
        """The first time that each run to stop was not found, by the clock of the event loop."""

    async def begin(self, operation: Operation, context: ToolContext) -> str:
        """Has the platform begin the run of an operation, or find the one that it has begun. Returns the run's id.

        Raises PlatformFailure, and Unavailable.
        """
        order = order_of(operation)
        run_id = await self._platform.execute(
            _user_of(operation),
            order["graph_id"],
            order["version"],
            order["inputs"],
            (operation.id, operation.task_id),
            call_back=not order["wait"],
        )
        await context.operations.name_remote(operation, run_id, due_in=due_after(order["wait"]))
        return run_id

    async def look(self, work: RemoteTask, operation: Operation, context: ToolContext) -> StillRunning | Outcome | None:
        try:
            run_id = await self.begin(operation, context) if work.id.startswith(UNNAMED) else work.id
            run = await self._platform.run(_user_of(operation), work.tool, run_id)
        except PlatformFailure as failure:
            if failure.undecided:
                return None
            if failure.failure is Failure.NOT_FOUND:
                return Outcome(
                    False, {"error_type": "run_lost"}, "The agent platform does not know the run any longer."
                )
            return failure.outcome
        if run.status.ended:
            return outcome_of_run(run)
        age = (datetime.now(UTC) - operation.created_at).total_seconds()
        return StillRunning(min(LONGEST_PAUSE, max(LEAST_PAUSE, age / GROWTH)), progress_of_run(run))

    async def answer(
        self, work: RemoteTask, wants: Any, operation: Operation, context: ToolContext, notes: list[str]
    ) -> Outcome | None:
        raise NotImplementedError("no run waits for anything")

    async def stop(self, work: RemoteTask) -> bool:
        try:
            run_id = await self._name_of(work)
            if run_id is None:
                return self._never_begun(work.id)
            self._missing.pop(work.id, None)
            await self._platform.cancel(UserId(work.whose or ""), work.tool, run_id)
        except PlatformFailure as failure:
            return not failure.undecided
        return True

    def _never_begun(self, name: str) -> bool:
        """Returns True if the platform has not had the run for longer than the request that begins it may take."""
        now = asyncio.get_running_loop().time()
        if now - self._missing.setdefault(name, now) < self._platform.limit + SLACK:
            if len(self._missing) > MOST_MISSING:
                del self._missing[next(iter(self._missing))]
            return False
        del self._missing[name]
        return True

    async def _name_of(self, work: RemoteTask) -> str | None:
        """Returns the run's id, even if the answer with it was lost. None if the platform has no such run."""
        if not work.id.startswith(UNNAMED):
            return work.id
        operation_id = work.id.removeprefix(UNNAMED)
        runs = await self._platform.runs(UserId(work.whose or ""), work.tool)
        return next((run.id for run in runs if run.operation_id == operation_id), None)


def due_after(wait: float) -> float:
    """Returns the seconds after which an executor asks for a run, if its turn waits for `wait` seconds."""
    return wait + SLACK


def order_of(operation: Operation) -> dict[str, Any]:
    """Returns the order of an operation that a tool for agents has begun."""
    order: Json = operation.work.order
    assert isinstance(order, dict), "the tools store an object"
    return order


def _user_of(operation: Operation) -> UserId:
    assert operation.user_id is not None, "only users run agents"
    return operation.user_id


def outcome_of_run(run: Run) -> Outcome:
    """Returns the outcome of a run that has ended, equal to the one that the platform posts."""
    document = outcome_document(run)
    if run.status is RunStatus.COMPLETED:
        return Outcome(True, document)
    if run.status is RunStatus.CANCELLED:
        return Outcome(False, document, run.error or "The run was cancelled.")
    return Outcome(False, document, run.error or "The run has failed.")


def progress_of_run(run: Run) -> Progress | None:
    """Returns how many of the run's steps have ended; None if its steps are not known."""
    if not run.nodes:
        return None
    ended = sum(node.status not in (RunStatus.QUEUED, RunStatus.RUNNING) for node in run.nodes)
    now = next((node.name for node in run.nodes if node.status == RunStatus.RUNNING), None)
    words = f"{ended} of {len(run.nodes)} steps" + (f", now {now}" if now else "")
    return Progress(round(100 * ended / len(run.nodes), 1), words[:300])


def nodes_of(run: Run) -> list[dict[str, Json]]:
    return [node.as_json() for node in run.nodes[:MOST_SHOWN]]

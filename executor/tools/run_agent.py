"""run_agent: runs an agent of the user's library on the agent platform, now or by a schedule."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.chat.models import Json
from backend.chat.outcomes import AGENT_PLATFORM, AGENT_RUN, AGENT_SCHEDULE, Operation, Outcome, ToolWork
from backend.chat.protocol.tool_responses import AgentSchedules, ErrorResponse, NeedLogin, ToolResponse
from backend.chat.store.library import RunnableAgent, graph_id_of, runnable_agent
from backend.errors import AgentNotFound
from backend.ids import UserId
from backend.platform.cron_words import cron_in_words
from backend.platform.failures import Failure, PlatformFailure
from executor.tools.agent_runs import AgentRuns, due_after, order_of
from executor.tools.context import ToolContext
from executor.tools.platform_inputs import Runnable, response_to_inputs
from executor.tools.remote_work import StillRunning
from executor.tools.tool import OperationAccepted, StoredResponse, Tool

if TYPE_CHECKING:  # an executor without a platform starts faster without it
    from backend.platform.answers import Schedule
    from backend.platform.client import Platform

LONGEST_WAIT = 120
"""The most seconds that a turn may wait for a run."""
FIRST_LOOK, LONGEST_PAUSE = 0.2, 3.0
"""Seconds before the first poll of a run for which the turn waits, and the longest between two."""
CALL_LIMIT = 600.0
"""Seconds that a call may take without the wait; the platform's client limits each request."""
UNKNOWN_EFFECT = "interrupted_unknown_effect"
AgentId = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ScheduleArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    cron: str = Field(min_length=1, max_length=200, description="When: five fields, minute hour day month weekday")
    timezone: str = Field("UTC", min_length=1, max_length=100, description="IANA name, such as Europe/Berlin")
    name: str = Field("", max_length=200, description="What the schedule is called; by default as the agent")


class RunAgentArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    agent_id: AgentId = Field(description="Its id in the library, or in its graph")
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="By default the newest that is active")
    inputs: dict[str, Any] = Field(default_factory=dict, description="The values of the agent's inputs, by name")
    wait_for_result: int = Field(0, ge=0, le=LONGEST_WAIT, description="Seconds to wait here for the result")
    schedule: ScheduleArgs | None = Field(None, description="Runs it again and again instead of now")


class RunAgent(Tool[RunAgentArgs]):
    name: ClassVar[str] = "run_agent"
    description: ClassVar[str] = (
        "Run an agent of the user's library with inputs, once or by a schedule. If inputs are missing it answers with "
        "what the agent takes: ask the user, then call it again. The result comes by itself later; "
        "`wait_for_result` waits for a run that takes seconds."
    )
    input_type = RunAgentArgs
    idempotent: ClassVar[bool] = True
    """A repeated call finds the operation that it registered, whose id is the key of the run at the platform."""
    destructive: ClassVar[bool] = True
    time_limit: ClassVar[float] = CALL_LIMIT

    def __init__(self, platform: Platform, *, most_runs: int, most_schedules: int) -> None:
        self._platform = platform
        self._runs = AgentRuns(platform)
        self._most_runs = most_runs
        self._most_schedules = most_schedules

    async def run(self, call: RunAgentArgs, context: ToolContext) -> ToolResponse | OperationAccepted | StoredResponse:
        session = context.session_id
        if context.user_id is None:
            return NeedLogin(message="Please sign in to run agents.", session_id=session)
        known = await context.operations.find(context.tool_call_id)
        if known is not None:
            return await self._go_on(known, context, already_started=True)
        try:
            async with context.database.connection() as c:
                agent = await runnable_agent(c, context.user_id, call.agent_id, call.version)
        except AgentNotFound:
            which = "agent" if call.version is None else "agent, or no such version of it,"
            return ErrorResponse(
                message=f"There is no such {which} in the library.", session_id=session, error="agent_not_found"
            )
        try:
            wanted = await self._uploaded(agent, context.user_id)
        except PlatformFailure as failure:
            return failure_response(failure, session)
        if (problem := response_to_inputs(wanted, call.inputs, session)) is not None:
            return problem
        return await self._go_on(await self._begun(call, agent, context), context)

    async def _uploaded(self, agent: RunnableAgent, user_id: UserId) -> Runnable:
        graph = await self._platform.put_graph(user_id, agent.graph_id, agent.version, agent.graph)
        return Runnable("agent", agent.id, agent.name, graph.input_schema, agent.version)

    async def _begun(self, call: RunAgentArgs, agent: RunnableAgent, context: ToolContext) -> Operation:
        order: dict[str, Json] = {
            "agent_id": agent.id,
            "agent_name": agent.name,
            "graph_id": agent.graph_id,
            "version": agent.version,
            "inputs": call.inputs,
        }
        given = call.model_dump(mode="json", exclude_defaults=True)
        work = ToolWork(context.task_id, self.name, context.tool_call_id, given, graph_id=agent.graph_id)
        if call.schedule is not None:
            schedule = {**call.schedule.model_dump(), "name": call.schedule.name or agent.name[:200]}
            order = {**order, "kind": AGENT_SCHEDULE, "schedule": schedule}
            return await context.operations.begin_schedule(work.ordering(order), most=self._most_schedules)
        order = {**order, "kind": AGENT_RUN, "wait": call.wait_for_result}
        return await context.operations.begin_run(
            work.ordering(order, remote=AGENT_PLATFORM),
            str(context.user_id),
            most=self._most_runs,
            due_in=due_after(call.wait_for_result + self._platform.limit),
        )

    async def _go_on(
        self, operation: Operation, context: ToolContext, *, already_started: bool = False
    ) -> OperationAccepted | StoredResponse:
        """Sends the operation's order, unless the platform has accepted it, and waits as long as the call wants."""
        if operation.result is not None:
            return StoredResponse(operation.result)
        if operation.opened or not operation.pending:
            return OperationAccepted(operation, already_started)
        if order_of(operation)["kind"] == AGENT_SCHEDULE:
            outcome: Outcome | None = await self._scheduled(operation, context)
        else:
            outcome = await self._started(operation, context)
        if outcome is None:
            await context.operations.mark_opened(operation)
            return OperationAccepted(operation, already_started)
        output = await context.operations.settle_remote(operation, outcome)
        return OperationAccepted(operation, already_started) if output is None else StoredResponse(output)

    async def _started(self, operation: Operation, context: ToolContext) -> Outcome | None:
        """Begins the run. Returns its outcome if it ends while the call waits, or if it did not begin.

        If it is unknown whether it began, the side job asks the platform again, with the same key.
        """
        try:
            await self._runs.begin(operation, context)
        except PlatformFailure as failure:
            if not (failure.sent and failure.undecided):
                return failure.outcome
            await context.operations.postpone_remote(operation, due_in=due_after(0))
            return None
        wait = order_of(operation)["wait"]
        return await self._soon_ended(operation, context, wait) if wait else None

    async def _soon_ended(self, operation: Operation, context: ToolContext, wait: float) -> Outcome | None:
        """Returns the outcome of a run that ends within `wait` seconds, else None."""
        clock, pause = asyncio.get_running_loop().time, FIRST_LOOK
        end = clock() + wait
        with context.untimed():
            work = await context.operations.remote_of(operation)
            while work is not None:
                found = await self._runs.look(work, operation, context)
                if isinstance(found, Outcome):
                    return found
                if isinstance(found, StillRunning) and found.progress is not None and context.progress is not None:
                    await context.progress(found.progress.percent or 0, 100, found.progress.message)
                if (left := end - clock()) <= 0:
                    break
                await asyncio.sleep(min(pause, left))
                pause = min(1.5 * pause, LONGEST_PAUSE)
        return None

    async def _scheduled(self, operation: Operation, context: ToolContext) -> Outcome:
        order = order_of(operation)
        body = {"version": order["version"], "node_input": order["inputs"], **order["schedule"]}
        assert operation.user_id is not None, "only users run agents"
        try:
            made = await self._platform.make_schedule(operation.user_id, order["graph_id"], body, operation.id)
        except PlatformFailure as failure:
            if failure.sent and failure.undecided:
                words = "The agent platform did not answer; whether the schedule was made is unknown."
                return Outcome(False, {"error_type": UNKNOWN_EFFECT}, words)
            return failure.outcome
        if (gone := await self._withdrawn(operation, made, context)) is not None:
            return gone
        first = f" It runs first at {made.next_run_at}." if made.next_run_at else ""
        response = AgentSchedules(
            message=f"The agent “{order['agent_name']}” runs by the schedule “{made.name}” "
            f"({cron_in_words(made.cron)}, {made.timezone}).{first}",
            schedules=[made.as_json()],
            count=1,
        )
        return Outcome(True, response.model_dump(mode="json", exclude_none=True))

    async def _withdrawn(self, operation: Operation, made: Schedule, context: ToolContext) -> Outcome | None:
        """Deletes the schedule if its agent was deleted while it was made. Returns None if the agent is there.

        Then its deletion deletes the schedule: it asks the platform again after its own commit.
        """
        assert operation.user_id is not None, "only users run agents"
        try:
            async with context.database.connection() as c:
                await graph_id_of(c, operation.user_id, str(order_of(operation)["agent_id"]))
        except AgentNotFound:
            try:
                await self._platform.delete_schedule(operation.user_id, made.id)
            except PlatformFailure as failure:
                if failure.failure is not Failure.NOT_FOUND:
                    return failure.outcome
            return Outcome(False, {"error_type": AgentNotFound.code}, "The agent was deleted meanwhile.")
        return None


def failure_response(failure: PlatformFailure, session: str, *, repeatable: bool = True) -> ErrorResponse:
    """Returns the response for a call that has failed. It says if it is unknown whether the call took effect."""
    if failure.sent and failure.undecided and not repeatable and failure.failure is not Failure.OUTPUT_TOO_LARGE:
        words = f"{failure.message} Whether the call took effect is unknown."
        return ErrorResponse(message=words, session_id=session, error=UNKNOWN_EFFECT, details=failure.details)
    return ErrorResponse(
        message=failure.message, session_id=session, error=failure.failure.value, details=failure.details
    )

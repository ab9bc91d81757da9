"""agent_schedules: lists, pauses, resumes and deletes schedules of agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.chat.protocol.tool_responses import AgentSchedules, ErrorResponse, NeedLogin, NoResults, ToolResponse
from backend.ids import UserId
from backend.platform.answers import Schedule
from backend.platform.cron_words import cron_in_words
from backend.platform.failures import Failure, PlatformFailure
from executor.tools.agent_making import find_agent
from executor.tools.context import ToolContext
from executor.tools.run_agent import failure_response
from executor.tools.tool import Tool

if TYPE_CHECKING:  # an executor without a platform starts faster without it
    from backend.platform.client import Platform

MOST_SHOWN = 50


class AgentSchedulesArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    action: Literal["list", "pause", "resume", "delete"] = "list"
    schedule_id: str | None = Field(None, max_length=200, description="The schedule to pause, resume or delete")
    agent_id: str | None = Field(None, max_length=200, description="Lists only the schedules of this agent")

    @model_validator(mode="after")
    def _names_a_schedule(self) -> AgentSchedulesArgs:
        if self.action != "list" and not self.schedule_id:
            raise ValueError(f"schedule_id is needed to {self.action} a schedule")
        return self


class AgentSchedulesTool(Tool[AgentSchedulesArgs]):
    name: ClassVar[str] = "agent_schedules"
    description: ClassVar[str] = (
        "List the schedules by which the user's agents run, or pause, resume or delete one. run_agent makes them."
    )
    input_type = AgentSchedulesArgs
    idempotent: ClassVar[bool] = True

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self, call: AgentSchedulesArgs, context: ToolContext) -> ToolResponse:
        user_id, session = context.user_id, context.session_id
        if user_id is None:
            return NeedLogin(message="Please sign in to see schedules of agents.", session_id=session)
        try:
            if call.action == "list":
                return await self._listed(call, user_id, context)
            schedule_id = call.schedule_id or ""
            if call.action == "delete":
                await self._platform.delete_schedule(user_id, schedule_id)
                return AgentSchedules(message="The schedule is deleted.", session_id=session, schedules=[], count=0)
            changed = await self._platform.pause_schedule(user_id, schedule_id, paused=call.action == "pause")
        except PlatformFailure as failure:
            if failure.failure is Failure.NOT_FOUND and call.action == "delete" and context.again:
                return AgentSchedules(message="The schedule is deleted.", session_id=session, schedules=[], count=0)
            if failure.failure is Failure.NOT_FOUND:
                return ErrorResponse(
                    message="There is no such schedule.", session_id=session, error="schedule_not_found"
                )
            return failure_response(failure, session)
        words = "paused" if changed.paused else "active"
        return AgentSchedules(
            message=f"The schedule “{changed.name}” is {words}.",
            session_id=session,
            schedules=[changed.as_json()],
            count=1,
        )

    async def _listed(self, call: AgentSchedulesArgs, user_id: UserId, context: ToolContext) -> ToolResponse:
        graph_id: str | None = None
        if call.agent_id is not None:
            agent = await find_agent(context, user_id, call.agent_id)
            if agent is None:
                words = "There is no such agent in the library."
                return ErrorResponse(message=words, session_id=context.session_id, error="agent_not_found")
            graph_id = agent.agent.graph_id
        found = await self._platform.schedules(user_id, graph_id)
        if not found:
            return NoResults(message="There are no schedules.", session_id=context.session_id)
        return AgentSchedules(
            message="; ".join(map(_words, found[:MOST_SHOWN])),
            session_id=context.session_id,
            schedules=[one.as_json() for one in found[:MOST_SHOWN]],
            count=len(found),
        )


def _words(schedule: Schedule) -> str:
    paused = ", paused" if schedule.paused else ""
    return f"{schedule.name} ({cron_in_words(schedule.cron)}, {schedule.timezone}{paused})"

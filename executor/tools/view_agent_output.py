"""view_agent_output: shows what came out of a run of an agent, or how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.chat.flows.run_results import words_for
from backend.chat.outcomes import AGENT_PLATFORM
from backend.chat.protocol.tool_responses import (
    AgentOutput,
    ErrorResponse,
    ExecutionStarted,
    NeedLogin,
    NoResults,
    ToolResponse,
)
from backend.chat.store import remote_tasks
from backend.ids import UserId
from backend.platform.answers import Run, RunStatus
from backend.platform.failures import PlatformFailure
from executor.tools.agent_making import find_agent
from executor.tools.agent_runs import nodes_of, progress_of_run
from executor.tools.context import ToolContext
from executor.tools.run_agent import failure_response
from executor.tools.tool import Tool

if TYPE_CHECKING:  # an executor without a platform starts faster without it
    from backend.platform.client import Platform


class ViewAgentOutputArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    agent_id: str | None = Field(None, max_length=200, description="The agent; shows its newest run")
    execution_id: str | None = Field(None, max_length=200, description="The run")

    @model_validator(mode="after")
    def _names_one(self) -> ViewAgentOutputArgs:
        if not (self.agent_id or self.execution_id):
            raise ValueError("agent_id or execution_id is needed")
        return self


class ViewAgentOutput(Tool[ViewAgentOutputArgs]):
    name: ClassVar[str] = "view_agent_output"
    description: ClassVar[str] = (
        "Show what a run of an agent gave, or how far it is: the newest run of an agent, or one by its execution_id. "
        "The result of a run that you have started comes by itself."
    )
    input_type = ViewAgentOutputArgs
    idempotent: ClassVar[bool] = True

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def run(self, call: ViewAgentOutputArgs, context: ToolContext) -> ToolResponse:
        user_id, session = context.user_id, context.session_id
        if user_id is None:
            return NeedLogin(message="Please sign in to see runs of agents.", session_id=session)
        agent = None if call.agent_id is None else await find_agent(context, user_id, call.agent_id)
        graph_id = None if agent is None else str(agent.agent.graph_id)
        if call.agent_id is None and call.execution_id is not None:
            async with context.database.connection() as c:
                graph_id = await remote_tasks.graph_of(c, user_id, AGENT_PLATFORM, call.execution_id)
            agent = None if graph_id is None else await find_agent(context, user_id, graph_id)
        if graph_id is None:
            named = "agent in the library" if call.agent_id else "run; name its agent as well"
            code = "agent_not_found" if call.agent_id else "execution_not_found"
            return ErrorResponse(message=f"There is no such {named}.", session_id=session, error=code)
        try:
            run = await self._run_of(user_id, graph_id, call.execution_id)
        except PlatformFailure as failure:
            return failure_response(failure, session)
        if run is None:
            return NoResults(message="This agent has not run yet.", session_id=session, suggestions=["Run it"])
        name = "agent" if agent is None else agent.agent.name
        return _response_to(run, None if agent is None else agent.agent.id, name, session)

    async def _run_of(self, user_id: UserId, graph_id: str, run_id: str | None) -> Run | None:
        if run_id is None:
            newest = await self._platform.runs(user_id, graph_id, limit=1)
            if not newest:
                return None
            run_id = newest[0].id
        return await self._platform.run(user_id, graph_id, run_id)


def _response_to(run: Run, agent_id: str | None, name: str, session: str) -> ToolResponse:
    if not run.status.ended:
        progress = progress_of_run(run)
        how_far = "" if progress is None else f": {progress.message}"
        return ExecutionStarted(
            message=f"The agent “{name}” is {run.status.value}{how_far}.",
            session_id=session,
            execution_id=run.id,
            agent_id=agent_id,
            agent_name=name,
            status=run.status.value,
            nodes=nodes_of(run),
        )
    words = {
        RunStatus.COMPLETED: f"The agent “{name}” has run. {words_for(run.output)}",
        RunStatus.CANCELLED: f"The run of the agent “{name}” was cancelled.",
    }.get(run.status, f"The run of the agent “{name}” has failed: {run.error or 'no reason was given'}")
    return AgentOutput(
        message=words,
        session_id=session,
        agent_id=agent_id,
        agent_name=name,
        execution_id=run.id,
        status=run.status.value,
        outputs=run.output,
        nodes=nodes_of(run),
    )

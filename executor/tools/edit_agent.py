"""edit_agent: has an agent of the user's library changed; the result is its next version."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from backend.ids import UserId
from executor.generator.work import Work
from executor.tools.agent_making import (
    AgentId,
    AgentMakingArgs,
    AgentMakingTool,
    LongText,
    Order,
    find_agent,
    library_agents,
)
from executor.tools.context import ToolContext

if TYPE_CHECKING:  # an executor without a generator starts faster without it
    from executor.generator.client import Generator


class EditAgentArgs(AgentMakingArgs):
    agent_id: AgentId = Field(description="The agent's id, as find_library_agent gave it")
    changes: LongText = Field(description="What should be different")


class EditAgent(AgentMakingTool[EditAgentArgs]):
    name: ClassVar[str] = "edit_agent"
    description: ClassVar[str] = (
        "Change an agent of the user's library; the change becomes its newest version. It takes minutes: "
        "the result comes by itself."
    )
    input_type = EditAgentArgs

    async def order(
        self, call: EditAgentArgs, user_id: UserId, context: ToolContext, generator: Generator
    ) -> Order | ToolResponse:
        saved = await find_agent(context, user_id, call.agent_id)
        if saved is None:
            return ErrorResponse(
                message="There is no such agent in your library.",
                session_id=context.session_id,
                error="agent_not_found",
            )
        changes = f"{call.changes}\n\n{call.context}" if call.context else call.changes
        agents = await library_agents(context, user_id, call.library_agent_ids)
        return Order(Work.update(changes, saved.graph, agents), saved.agent.graph_id, saved.agent.version)

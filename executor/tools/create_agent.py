"""create_agent: has an agent made from the user's description."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, assert_never

from pydantic import Field

from backend.chat.protocol.tool_responses import ClarificationNeeded, SuggestedGoal, ToolResponse
from backend.ids import UserId
from executor.generator.answers import ClarifyingQuestions, Instructions, UnachievableGoal, VagueGoal
from executor.generator.work import Work
from executor.tools.agent_making import AgentMakingArgs, AgentMakingTool, LongText, Order, library_agents
from executor.tools.context import ToolContext

if TYPE_CHECKING:  # an executor without a generator starts faster without it
    from executor.generator.client import Generator


class CreateAgentArgs(AgentMakingArgs):
    description: LongText = Field(description="What the agent should do, with what, when, and what comes out")


class CreateAgent(AgentMakingTool[CreateAgentArgs]):
    name: ClassVar[str] = "create_agent"
    description: ClassVar[str] = (
        "Make a new automation agent from a description and save it in the user's library. It takes minutes: "
        "the result comes by itself. It may answer with questions or with a better goal: ask the user, then call it "
        "again with what they say in `context`."
    )
    input_type = CreateAgentArgs

    async def order(
        self, call: CreateAgentArgs, user_id: UserId, context: ToolContext, generator: Generator
    ) -> Order | ToolResponse:
        agents = await library_agents(context, user_id, call.library_agent_ids)
        goal = await generator.decompose(call.description, call.context or None, agents)
        match goal:
            case Instructions():
                return Order(Work.generate(goal, agents))
            case ClarifyingQuestions(questions):
                return ClarificationNeeded(
                    message="A few questions first.", session_id=context.session_id, questions=list(questions)
                )
            case VagueGoal(suggested):
                return SuggestedGoal(
                    message="The goal is too vague to make an agent. This goal would do.",
                    session_id=context.session_id,
                    suggested_goal=suggested,
                    reason="The description is too vague.",
                    original_goal=call.description,
                    goal_type="vague",
                )
            case UnachievableGoal(reason, suggested):
                return SuggestedGoal(
                    message="No agent can do this, but an agent can reach this similar goal.",
                    session_id=context.session_id,
                    suggested_goal=suggested,
                    reason=reason,
                    original_goal=call.description,
                    goal_type="unachievable",
                )
        assert_never(goal)

"""create_agent: has an agent made that does what the user describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, assert_never

from pydantic import Field

from backend.chat.tool_responses import ClarificationNeeded, SuggestedGoal, ToolResponse
from backend.ids import UserId
from executor.generator.answers import ClarifyingQuestions, Instructions, UnachievableGoal, VagueGoal
from executor.generator.work import Work
from executor.tools.agent_making import LongText, MakesAgents, Making, library_agents
from executor.tools.tool import ToolContext

if TYPE_CHECKING:  # importing it costs the start of an executor that has no generator
    from executor.generator.client import Generator


class Wanted(Making):
    description: LongText = Field(description="What the agent should do, with what, when, and what comes out")


class CreateAgent(MakesAgents[Wanted]):
    name: ClassVar[str] = "create_agent"
    description: ClassVar[str] = (
        "Make a new automation agent from a description and save it in the user's library. It takes minutes: "
        "the result comes by itself. It may answer with questions or with a better goal: ask the user, then call it "
        "again with what they say in `context`."
    )
    input_type = Wanted

    async def order(
        self, call: Wanted, user_id: UserId, context: ToolContext, generator: Generator
    ) -> tuple[Work, str | None] | ToolResponse:
        agents = await library_agents(context, user_id, call.library_agent_ids)
        goal = await generator.decompose(call.description, call.context or None, agents)
        match goal:
            case Instructions():
                return Work.generate(goal, agents), None
            case ClarifyingQuestions(questions):
                return ClarificationNeeded(
                    message="A few questions first.", session_id=context.session_id, questions=list(questions)
                )
            case VagueGoal(suggested):
                return SuggestedGoal(
                    message="The goal says too little to make an agent of it; this one could be made.",
                    session_id=context.session_id,
                    suggested_goal=suggested,
                    reason="The description is too vague.",
                    original_goal=call.description,
                    goal_type="vague",
                )
            case UnachievableGoal(reason, suggested):
                return SuggestedGoal(
                    message="No agent can do this; something near it can be done.",
                    session_id=context.session_id,
                    suggested_goal=suggested,
                    reason=reason,
                    original_goal=call.description,
                    goal_type="unachievable",
                )
        assert_never(goal)

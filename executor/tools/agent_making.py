"""What the tools that make agents share: the generator is asked, and its answer is the call's or comes later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.chat.library import SavedAgent, get_agent
from backend.chat.models import Json
from backend.chat.outcomes import Operation, Outcome, ToolWork, Use
from backend.chat.tool_responses import ErrorResponse, NeedLogin, ToolResponse
from backend.errors import AgentNotFound
from backend.ids import UserId
from executor.generator.answers import AgentMade, ClarifyingQuestions, Pending, WorkAnswer
from executor.generator.failures import GeneratorFailure
from executor.generator.work import Work
from executor.tools.tool import Accepted, Stored, Tool, ToolContext

if TYPE_CHECKING:  # importing it costs the start of an executor that has no generator
    from executor.generator.client import Generator

MOST_LIBRARY_AGENTS = 20
AGENT_TIME = 900.0
"""Seconds that such a call may take in all; the generator has a limit of its own."""
AgentId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class Making(BaseModel):
    """What all of these calls may say."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    context: str = Field("", max_length=20_000, description="What else is known: answers to earlier questions, wishes")
    library_agent_ids: list[AgentId] = Field(
        default_factory=list, max_length=MOST_LIBRARY_AGENTS, description="Agents of the library that it may use"
    )
    save: bool = Field(True, description="Save it in the user's library; false: only show it")

    @property
    def use(self) -> Use:
        return Use.SAVE_AGENT if self.save else Use.SHOW_AGENT


Input = TypeVar("Input", bound=Making)


class MakesAgents(Tool[Input], Generic[Input]):
    """One way to make an agent. `order` says what to ask of the generator, or why it is not asked."""

    idempotent: ClassVar[bool] = True  # by its call: what was begun before is found, and asked for again
    time_limit: ClassVar[float] = AGENT_TIME

    def __init__(self, generator: Generator | None) -> None:
        self._generator = generator

    async def order(
        self, call: Input, user_id: UserId, context: ToolContext, generator: Generator
    ) -> tuple[Work, str | None] | ToolResponse:
        """The work, and the graph id of the agent that is changed. Raises GeneratorFailure."""
        raise NotImplementedError

    async def run(self, call: Input, context: ToolContext) -> ToolResponse | Accepted | Stored:
        session, generator = context.session_id, self._generator
        if context.user_id is None:
            return NeedLogin(message="Please sign in to make agents.", session_id=session)
        if generator is None:
            words = "Making agents is not available on this server."
            return ErrorResponse(message=words, session_id=session, error="service_unavailable")
        begun = await context.operations.find(context.tool_call_id)
        if begun is not None:
            return await self._ask(generator, begun, context, again=True)
        try:
            ordered = await self.order(call, context.user_id, context, generator)
        except GeneratorFailure as failure:
            return ErrorResponse(
                message=failure.message,
                session_id=session,
                error=failure.error_type,
                error_type=failure.error_type,
                details=failure.details,
            )
        if isinstance(ordered, ToolResponse):
            return ordered
        work, graph_id = ordered
        operation = await context.operations.register(
            ToolWork(
                turn=context.task_id,
                tool_name=self.name,
                tool_call_id=context.tool_call_id,
                input=call.model_dump(mode="json", exclude_defaults=True),
                use=call.use,
                order=work.as_json(),
                graph_id=graph_id,
            )
        )
        return await self._ask(generator, operation, context)

    async def _ask(
        self, generator: Generator, operation: Operation, context: ToolContext, *, again: bool = False
    ) -> Accepted | Stored:
        if operation.result is not None:
            return Stored(operation.result)
        try:
            answer = await generator.send(Work.from_json(operation.work.order), operation.id, operation.task_id)
        except GeneratorFailure as failure:
            told: Json = {"error_type": failure.error_type.value, "details": failure.details}
            outcome = Outcome(False, told, failure.message)
        else:
            if isinstance(answer, Pending):
                await context.operations.opened(operation)
                return Accepted(operation, again)
            outcome = _outcome_of(answer)
        output = await context.operations.settled(operation, outcome)
        return Accepted(operation, again) if output is None else Stored(output)


def _outcome_of(answer: WorkAnswer) -> Outcome:
    match answer:
        case AgentMade(agent_json):
            return Outcome(True, {"agent_json": agent_json})
        case ClarifyingQuestions(questions):
            asked = [question.model_dump(exclude_none=True) for question in questions]
            return Outcome(True, {"type": "clarifying_questions", "questions": asked})
    raise AssertionError("an answer that is pending has no outcome yet")


async def library_agents(context: ToolContext, user_id: UserId, ids: Sequence[str]) -> list[Json]:
    """What the generator is told of agents that it may use; those that are not the user's are left out."""
    found = [await find_agent(context, user_id, id) for id in dict.fromkeys(ids)]
    return [saved.graph for saved in found if saved is not None]


async def find_agent(context: ToolContext, user_id: UserId, agent_id: str) -> SavedAgent | None:
    """The user's agent of that id, its own or its graph's."""
    try:
        async with context.database.connection() as c:
            return await get_agent(c, user_id, agent_id)
    except AgentNotFound:
        return None

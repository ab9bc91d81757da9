"""Base of the tools that make agents: they ask the generator, which answers at once or accepts the work for later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backend.chat.models import Json
from backend.chat.outcomes import Operation, ResultUse, ToolWork
from backend.chat.protocol.tool_responses import ErrorResponse, NeedLogin, ToolResponse
from backend.chat.store.library import SavedAgent, get_agent
from backend.errors import AgentNotFound
from backend.ids import UserId
from executor.generator.answers import Pending
from executor.generator.failures import GeneratorFailure
from executor.generator.outcomes import failed, outcome_of
from executor.generator.work import Work
from executor.tools.context import ToolContext
from executor.tools.tool import OperationAccepted, StoredResponse, Tool

if TYPE_CHECKING:  # an executor without a generator starts faster without it
    from executor.generator.client import Generator

MAX_LIBRARY_AGENTS = 20
CALL_LIMIT = 900.0
"""Seconds that a call may take, with all its requests; the generator's client limits each of them."""
AgentId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class AgentMakingArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    context: str = Field("", max_length=20_000, description="What else is known: answers to earlier questions, wishes")
    library_agent_ids: list[AgentId] = Field(
        default_factory=list, max_length=MAX_LIBRARY_AGENTS, description="Agents of the library that it may use"
    )
    save: bool = Field(True, description="Save it in the user's library; false: only show it")

    @property
    def use(self) -> ResultUse:
        return ResultUse.SAVE_AGENT if self.save else ResultUse.SHOW_AGENT


Input = TypeVar("Input", bound=AgentMakingArgs)


@dataclass(frozen=True, slots=True)
class Order:
    """Work for the generator. `graph_id` names the agent that it changes, from its version `base_version` on.

    Both are None if the work makes a new agent.
    """

    work: Work
    graph_id: str | None = None
    base_version: int | None = None


class AgentMakingTool(Tool[Input], Generic[Input]):
    """A tool that has the generator make or change an agent; a subclass defines the order in `order`."""

    idempotent: ClassVar[bool] = True
    """A repeated call finds the operation that it registered, and sends it again if the generator may not have it."""
    time_limit: ClassVar[float] = CALL_LIMIT

    def __init__(self, generator: Generator | None) -> None:
        self._generator = generator

    async def order(
        self, call: Input, user_id: UserId, context: ToolContext, generator: Generator
    ) -> Order | ToolResponse:
        """Returns the order, or a response if there is nothing to order. Raises GeneratorFailure."""
        raise NotImplementedError

    async def run(self, call: Input, context: ToolContext) -> ToolResponse | OperationAccepted | StoredResponse:
        session, generator = context.session_id, self._generator
        if context.user_id is None:
            return NeedLogin(message="Please sign in to make agents.", session_id=session)
        if generator is None:
            words = "Making agents is not available on this server."
            return ErrorResponse(message=words, session_id=session, error="service_unavailable")
        known = await context.operations.find(context.tool_call_id)
        if known is not None:
            return await self._send(generator, known, context, already_started=True)
        try:
            order = await self.order(call, context.user_id, context, generator)
        except GeneratorFailure as failure:
            return ErrorResponse(
                message=failure.message,
                session_id=session,
                error=failure.error_type,
                error_type=failure.error_type,
                details=failure.details,
            )
        if isinstance(order, ToolResponse):
            return order
        operation = await context.operations.register(
            ToolWork(
                turn=context.task_id,
                tool_name=self.name,
                tool_call_id=context.tool_call_id,
                input=call.model_dump(mode="json", exclude_defaults=True),
                use=call.use,
                order=order.work.as_json(),
                graph_id=order.graph_id,
                base_version=order.base_version,
            )
        )
        return await self._send(generator, operation, context)

    async def _send(
        self, generator: Generator, operation: Operation, context: ToolContext, *, already_started: bool = False
    ) -> OperationAccepted | StoredResponse:
        """Sends the operation's order, unless the generator has accepted it. Stores an outcome that comes at once."""
        if operation.result is not None:
            return StoredResponse(operation.result)
        if operation.opened:
            return OperationAccepted(operation, already_started)
        try:
            answer = await generator.send(Work.from_json(operation.work.order), operation.id, operation.task_id)
        except GeneratorFailure as failure:
            outcome = failed(failure)
        else:
            if isinstance(answer, Pending):
                await context.operations.mark_opened(operation)
                return OperationAccepted(operation, already_started)
            outcome = outcome_of(answer)
        output = await context.operations.settle(operation, outcome)
        return OperationAccepted(operation, already_started) if output is None else StoredResponse(output)


async def library_agents(context: ToolContext, user_id: UserId, ids: Sequence[str]) -> list[Json]:
    """Returns the graphs of agents that the generator may use, without those that the user does not own."""
    found = [await find_agent(context, user_id, id) for id in dict.fromkeys(ids)]
    return [saved.graph for saved in found if saved is not None]


async def find_agent(context: ToolContext, user_id: UserId, agent_id: str) -> SavedAgent | None:
    """Returns the user's agent with that agent id or graph id, or None."""
    try:
        async with context.database.connection() as c:
            return await get_agent(c, user_id, agent_id)
    except AgentNotFound:
        return None

"""customize_agent: has an agent made for the user from a template or a published agent."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from backend.chat.store.published.agents import get_published
from backend.errors import AgentNotFound
from backend.ids import UserId
from executor.generator.work import Work
from executor.tools.agent_making import AgentId, AgentMakingArgs, AgentMakingTool, LongText, Order
from executor.tools.context import ToolContext
from executor.tools.templates import Templates

if TYPE_CHECKING:  # an executor without a generator starts faster without it
    from executor.generator.client import Generator


class CustomizeAgentArgs(AgentMakingArgs):
    agent_id: AgentId = Field(description="The template (creator/slug) or published agent, as find_agent gave it")
    modifications: LongText = Field(description="What should be different from the template")


class CustomizeAgent(AgentMakingTool[CustomizeAgentArgs]):
    name: ClassVar[str] = "customize_agent"
    description: ClassVar[str] = (
        "Make an agent for the user out of a template (creator/slug) or a published agent, changed as they wish. It "
        "takes minutes: the result comes by itself."
    )
    input_type = CustomizeAgentArgs

    def __init__(self, generator: Generator | None, templates: Templates) -> None:
        super().__init__(generator)
        self._templates = templates

    async def order(
        self, call: CustomizeAgentArgs, user_id: UserId, context: ToolContext, generator: Generator
    ) -> Order | ToolResponse:
        template = self._templates.find(call.agent_id)
        if template is None:
            with suppress(AgentNotFound):
                async with context.database.connection() as c:
                    _, template = await get_published(c, user_id, call.agent_id)
        if template is None:
            known = ", ".join(self._templates.names[:20])
            return ErrorResponse(
                message=f"There is no such template. There are: {known}." if known else "There are no templates here.",
                session_id=context.session_id,
                error="template_not_found",
            )
        return Order(Work.modify_template(template, call.modifications, call.context or None))

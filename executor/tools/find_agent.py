"""find_agent: finds templates, and agents that users of this deployment have published."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import AgentsFound, JsonObject, NeedLogin, NoResults, ToolResponse
from backend.chat.store.published.agents import PublishedAgent, find_published
from executor.tools.context import ToolContext
from executor.tools.templates import Templates
from executor.tools.tool import Tool

MOST = 20
MAX_DESCRIPTION_CHARS = 500


class FindAgentArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    query: str = Field(min_length=1, max_length=500, description="Words of the agent's name or description")


class FindAgent(Tool[FindAgentArgs]):
    name: ClassVar[str] = "find_agent"
    description: ClassVar[str] = (
        "Search agents that are there for everyone: templates, and agents that users have published. customize_agent "
        "makes one of them the user's own."
    )
    input_type = FindAgentArgs
    idempotent: ClassVar[bool] = True

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    async def run(self, call: FindAgentArgs, context: ToolContext) -> ToolResponse:
        if context.user_id is None:
            return NeedLogin(message="Please sign in to see published agents.", session_id=context.session_id)
        templates = self._templates.search(call.query, MOST)
        async with context.database.connection() as c:
            published = await find_published(c, context.user_id, call.query, MOST)
        agents = [*templates, *map(_as_json, published)][:MOST]
        if not agents:
            return NoResults(
                message="No template and no published agent fits that.",
                session_id=context.session_id,
                suggestions=["Try other words", "Make a new agent"],
            )
        number = "1 agent" if len(agents) == 1 else f"{len(agents)} agents"
        return AgentsFound(
            message=f"Found {number} that everyone may use.",
            session_id=context.session_id,
            title=f"{number} for everyone",
            agents=agents,
            count=len(agents),
        )


def _as_json(agent: PublishedAgent) -> JsonObject:
    return {
        "id": agent.id,
        "source": "published",
        "name": agent.name,
        "description": agent.description[:MAX_DESCRIPTION_CHARS],
        "version": agent.version,
        "library_agent_link": f"/library?{urlencode({'q': agent.name})}",
    }

"""find_library_agent: finds agents in the user's library."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import AgentsFound, JsonObject, NeedLogin, NoResults, ToolResponse
from backend.chat.store.library import LibraryAgent, find_agents
from executor.tools.context import ToolContext
from executor.tools.tool import Tool

MAX_AGENTS = 20
MAX_DESCRIPTION_CHARS = 500


class FindLibraryAgentArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    query: str = Field(
        min_length=1, max_length=500, description="Words of the agent's name or description, or one of its ids"
    )


class FindLibraryAgent(Tool[FindLibraryAgentArgs]):
    name: ClassVar[str] = "find_library_agent"
    description: ClassVar[str] = (
        "Search the agents that the user has in their library. Call it before an agent is edited or used in another "
        "one, to learn its id."
    )
    input_type = FindLibraryAgentArgs
    idempotent: ClassVar[bool] = True

    async def run(self, call: FindLibraryAgentArgs, context: ToolContext) -> ToolResponse:
        if context.user_id is None:
            return NeedLogin(message="Please sign in to see your library of agents.", session_id=context.session_id)
        async with context.database.connection() as c:
            found = await find_agents(c, context.user_id, call.query, MAX_AGENTS)
        if not found:
            return NoResults(
                message="No agent in your library fits that.",
                session_id=context.session_id,
                suggestions=["Try other words", "Make a new agent"],
            )
        number = "1 agent" if len(found) == 1 else f"{len(found)} agents"
        return AgentsFound(
            message=f"Found {number} in your library.",
            session_id=context.session_id,
            title=f"{number} in your library",
            agents=[_as_json(agent) for agent in found],
            count=len(found),
        )


def _as_json(agent: LibraryAgent) -> JsonObject:
    return {
        "id": agent.id,
        "name": agent.name,
        "description": agent.description[:MAX_DESCRIPTION_CHARS],
        "graph_id": agent.graph_id,
        "version": agent.version,
        "library_agent_link": agent.library_link,
    }

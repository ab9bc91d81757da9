"""The library of the caller's agents: list, read, delete. The tools of the model save agents in it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from backend.api.agent_schemas import AgentList, AgentOut, AgentSummary, VersionList, VersionOut, VersionSummary
from backend.api.deps import AgentsUser, AnAgent, AppState, AsCaller, Limit, Offset
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.chat.store import library

router = APIRouter(
    prefix="/api/library/agents", tags=["library"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)
MISSING = responses(404)


@router.get("")
async def list_agents(
    api: AppState,
    caller: AsCaller,
    limit: Limit = 50,
    offset: Offset = 0,
    q: Annotated[
        str | None,
        Query(max_length=200, description="Returns only agents with this text in their name or description."),
    ] = None,
) -> AgentList:
    """Lists the caller's agents, last saved first. The list of an anonymous caller is empty.

    It has at most the first 1,000 characters of a description.
    """
    if caller.user_id is None:
        return AgentList(agents=[], total=0)
    async with api.resources.database.connection() as c:
        found, total = await library.list_agents(c, caller.user_id, limit=limit, offset=offset, query=q or None)
    return AgentList(agents=[AgentSummary.of(agent) for agent in found], total=total)


@router.get("/{agent_id}", responses=MISSING)
async def read_agent(api: AppState, user_id: AgentsUser, agent_id: AnAgent) -> AgentOut:
    """Returns an agent with the graph of its newest version."""
    async with api.resources.database.connection() as c:
        return AgentOut.of_saved(await library.get_agent(c, user_id, agent_id))


@router.get("/{agent_id}/versions", responses=MISSING)
async def list_versions(
    api: AppState, user_id: AgentsUser, agent_id: AnAgent, limit: Limit = 50, offset: Offset = 0
) -> VersionList:
    """Lists the versions of an agent, newest first, without their graphs."""
    async with api.resources.database.connection() as c:
        found, total = await library.agent_versions(c, user_id, agent_id, limit=limit, offset=offset)
    return VersionList(versions=[VersionSummary.of(version) for version in found], total=total)


@router.get("/{agent_id}/versions/{version}", responses=MISSING)
async def read_version(
    api: AppState, user_id: AgentsUser, agent_id: AnAgent, version: Annotated[int, Path(ge=1, le=2**31 - 1)]
) -> VersionOut:
    """Returns one version of an agent with its graph. Versions never change."""
    async with api.resources.database.connection() as c:
        found, graph = await library.get_version(c, user_id, agent_id, version)
    return VersionOut(**VersionSummary.of(found).model_dump(), graph=graph)


@router.delete("/{agent_id}", status_code=204, responses=MISSING)
async def delete_agent(api: AppState, user_id: AgentsUser, agent_id: AnAgent) -> None:
    """Deletes an agent with all its versions."""
    async with api.resources.database.connection() as c:
        await library.delete_agent(c, user_id, agent_id)

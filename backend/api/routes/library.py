"""The library of the caller's agents: list, read, versions, delete. Agents come into it by the tools that make them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from backend.api.agent_schemas import AgentList, AgentOut, AgentSummary, VersionList, VersionOut, VersionSummary
from backend.api.deps import AgentsUser, AnAgent, AsCaller, AtDesk
from backend.api.desk import CallerRoute
from backend.api.problems import responses
from backend.chat import library

router = APIRouter(
    prefix="/api/library/agents", tags=["library"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)
MISSING = responses(404)
Limit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


@router.get("")
async def list_agents(
    desk: AtDesk,
    caller: AsCaller,
    limit: Limit = 50,
    offset: Offset = 0,
    q: Annotated[str | None, Query(max_length=200, description="Search in names and descriptions.")] = None,
) -> AgentList:
    """The caller's agents, last saved first. An anonymous caller has none."""
    if caller.user_id is None:
        return AgentList(agents=[], total=0)
    async with desk.house.database.connection() as c:
        found, total = await library.list_agents(c, caller.user_id, limit=limit, offset=offset, query=q or None)
    return AgentList(agents=[AgentSummary.of(agent) for agent in found], total=total)


@router.get("/{agent_id}", responses=MISSING)
async def read_agent(desk: AtDesk, user_id: AgentsUser, agent_id: AnAgent) -> AgentOut:
    """An agent with the graph of its newest version."""
    async with desk.house.database.connection() as c:
        return AgentOut.of_saved(await library.get_agent(c, user_id, agent_id))


@router.get("/{agent_id}/versions", responses=MISSING)
async def list_versions(
    desk: AtDesk, user_id: AgentsUser, agent_id: AnAgent, limit: Limit = 50, offset: Offset = 0
) -> VersionList:
    """The versions of an agent, newest first."""
    async with desk.house.database.connection() as c:
        found, total = await library.agent_versions(c, user_id, agent_id, limit=limit, offset=offset)
    return VersionList(versions=[VersionSummary.of(version) for version in found], total=total)


@router.get("/{agent_id}/versions/{version}", responses=MISSING)
async def read_version(
    desk: AtDesk, user_id: AgentsUser, agent_id: AnAgent, version: Annotated[int, Path(ge=1, le=2**31 - 1)]
) -> VersionOut:
    """One version of an agent, with its graph."""
    async with desk.house.database.connection() as c:
        found, graph = await library.get_version(c, user_id, agent_id, version)
    return VersionOut(**VersionSummary.of(found).model_dump(), graph=graph)


@router.delete("/{agent_id}", status_code=204, responses=MISSING)
async def delete_agent(desk: AtDesk, user_id: AgentsUser, agent_id: AnAgent) -> None:
    """Deletes an agent with all its versions."""
    async with desk.house.database.connection() as c:
        await library.delete_agent(c, user_id, agent_id)

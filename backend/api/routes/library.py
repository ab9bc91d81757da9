"""The library of the caller's agents: list, read, import, restore, delete. The tools of the model save agents in it."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response

from backend.api.agent_schemas import AgentList, AgentOut, AgentSummary, VersionList, VersionOut, VersionSummary
from backend.api.deps import AgentsUser, AnAgent, AppState, AsCaller, AUser, Limit, Offset
from backend.api.platform_access import MAY_BE_KEPT, asking_platform, deleted
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.state import ApiState
from backend.chat.protocol.agent_json import parse_agent
from backend.chat.store import library
from backend.chat.store.published.agents import published_version
from backend.errors import AgentNotFound, AppError
from backend.ids import GraphId, UserId


class AgentRoute(CallerRoute):
    """A route that takes the JSON of an agent, which has many values."""

    max_values = 100_000


PREFIX = "/api/library/agents"
REFUSALS = responses(401, 413, 422, 503)
router = APIRouter(prefix=PREFIX, tags=["library"], route_class=CallerRoute, responses=REFUSALS)
imports = APIRouter(prefix=PREFIX, tags=["library"], route_class=AgentRoute, responses=REFUSALS)
MISSING = responses(404)
logger = logging.getLogger(__name__)


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


@imports.post("", status_code=201, responses=responses(400, 408, 415, 429))
async def import_agent(
    api: AppState,
    user_id: AUser,
    agent: Annotated[dict[str, Any], Body(description="The JSON of an agent, as a version has it in `graph`.")],
) -> AgentOut:
    """Saves an agent. If the caller has an agent with the same id, it becomes the next version of that one."""
    graph = parse_agent(agent)
    async with api.resources.database.connection() as c:
        saved = await library.save_agent(c, user_id, graph, task_id=None, most=api.resources.settings.max_agents)
    return AgentOut.of_saved(saved)


@router.get("/{agent_id}", responses=MISSING)
async def read_agent(api: AppState, user_id: AgentsUser, agent_id: AnAgent) -> AgentOut:
    """Returns an agent with the graph of its newest version."""
    async with api.resources.database.connection() as c:
        saved = await library.get_agent(c, user_id, agent_id)
        return AgentOut.of_saved(saved, await published_version(c, saved.agent.id))


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


@router.post("/{agent_id}/versions/{version}/restore", responses=MISSING)
async def restore_version(
    api: AppState, user_id: AgentsUser, agent_id: AnAgent, version: Annotated[int, Path(ge=1, le=2**31 - 1)]
) -> AgentOut:
    """Makes an earlier version the newest one, as a new version. Changes nothing if the newest is the same."""
    async with api.resources.database.connection() as c:
        saved = await library.restore_version(c, user_id, agent_id, version)
        return AgentOut.of_saved(saved, await published_version(c, saved.agent.id))


@router.delete("/{agent_id}", status_code=204, response_class=Response, responses={**MISSING, **MAY_BE_KEPT})
async def delete_agent(api: AppState, user_id: AgentsUser, agent_id: AnAgent) -> Response:
    """Deletes an agent with all its versions; at the agent platform also its schedules and runs.

    If the platform cannot be reached, nothing is deleted: a schedule would go on without its agent. If it cannot delete
    agents (405, 501), the agent is deleted here, and the answer is 200 with `kept_at_platform`.
    """
    async with api.resources.database.connection() as c:
        graph_id = await library.graph_id_of(c, user_id, agent_id)
    await _delete_at_platform(api, user_id, graph_id)
    async with api.resources.database.connection() as c:
        await library.delete_agent(c, user_id, agent_id)
    try:
        also_there = await _delete_at_platform(api, user_id, graph_id)  # a schedule may have been made meanwhile
    except AppError as error:  # the agent is gone, so the request cannot be repeated
        logger.warning("an agent is deleted, but perhaps not at the platform", extra={"code": error.code})
        also_there = False
    return deleted(also_there=also_there)


async def _delete_at_platform(api: ApiState, user_id: UserId, graph_id: GraphId) -> bool:
    """Returns False if the platform cannot delete agents."""
    if api.platform is None:
        return True
    async with asking_platform(api, AgentNotFound) as platform:
        return await platform.delete_graph(user_id, graph_id)

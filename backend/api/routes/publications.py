"""Published agents: users publish versions of their agents, and others in the deployment read and copy them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.agent_schemas import AgentOut, NewPublication, PublishedList, PublishedOut, PublishedSummary
from backend.api.deps import AgentsUser, AnAgent, AppState, AUser, Limit, Offset
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.chat.protocol.agent_json import parse_agent
from backend.chat.store import library
from backend.chat.store.published import agents as publications
from backend.ids import GraphId, new_library_agent_id

router = APIRouter(
    prefix="/api/library", tags=["published agents"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)
TAKES_JSON, MISSING = responses(400, 408, 415), responses(404)
Search = Annotated[str | None, Query(max_length=200, description="Only agents with this text in name or description.")]


@router.put("/agents/{agent_id}/publication", responses=TAKES_JSON | MISSING)
async def publish_agent(api: AppState, user_id: AgentsUser, agent_id: AnAgent, new: NewPublication) -> PublishedSummary:
    """Publishes a version of the agent: all signed-in users of this deployment may read and copy it.

    Secrets in its graph are redacted for them. A version that was published before is replaced.
    """
    async with api.resources.database.connection() as c:
        return PublishedSummary.model_validate(await publications.publish(c, user_id, agent_id, new.version))


@router.delete("/agents/{agent_id}/publication", status_code=204, responses=MISSING)
async def unpublish_agent(api: AppState, user_id: AgentsUser, agent_id: AnAgent) -> None:
    """Takes the publication back. Copies of others stay."""
    async with api.resources.database.connection() as c:
        await publications.unpublish(c, user_id, agent_id)


@router.get("/published")
async def list_published(
    api: AppState, user_id: AUser, limit: Limit = 50, offset: Offset = 0, q: Search = None
) -> PublishedList:
    """Lists the published agents of all users, the newest first."""
    async with api.resources.database.connection() as c:
        found, total = await publications.list_published(c, user_id, limit=limit, offset=offset, query=q or None)
    return PublishedList(agents=[PublishedSummary.model_validate(one) for one in found], total=total)


@router.get("/published/{agent_id}", responses=MISSING)
async def read_published(api: AppState, user_id: AUser, agent_id: AnAgent) -> PublishedOut:
    """Returns a published agent with its graph. Secrets are redacted, and left out where a run would use them."""
    async with api.resources.database.connection() as c:
        found, graph = await publications.get_published(c, user_id, agent_id)
    return PublishedOut(**PublishedSummary.model_validate(found).model_dump(), graph=graph)


@router.post("/published/{agent_id}/copy", status_code=201, responses=MISSING | responses(429))
async def copy_published(api: AppState, user_id: AUser, agent_id: AnAgent) -> AgentOut:
    """Saves a copy of a published agent in the caller's library, with an id of its own."""
    async with api.resources.database.transaction() as c:
        _, graph = await publications.get_published(c, user_id, agent_id)
        copy = parse_agent(graph, graph_id=GraphId(new_library_agent_id()))
        saved = await library.save_agent(c, user_id, copy, task_id=None, most=api.resources.settings.max_agents)
    return AgentOut.of_saved(saved)

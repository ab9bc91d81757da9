"""The signed-in user: deletion of everything that is stored about them."""

from __future__ import annotations

from fastapi import APIRouter, Response

from backend.api.deps import AppState, AsCaller, AUser
from backend.api.platform_access import MAY_BE_KEPT, asking_platform, deleted
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.state import ApiState
from backend.chat.flows.delete import delete_user
from backend.chat.oauth.sealing import Seal
from backend.errors import NotFound
from backend.ids import UserId


class DeletionRoute(CallerRoute):
    """A route that may take a minute, because it deletes everything of a user."""

    answer_timeout = 60.0


router = APIRouter(prefix="/user", tags=["user"], route_class=DeletionRoute, responses=responses(401, 413, 422, 503))


@router.delete("", status_code=204, response_class=Response, responses=MAY_BE_KEPT)
async def delete_everything(api: AppState, caller: AsCaller, user_id: AUser) -> Response:
    """Deletes all that is stored about the caller: conversations, agents, facts, webhooks. It cannot be undone.

    Whatever still runs is cancelled. Takes some seconds for many conversations. An anonymous caller gets a 401. If the
    agent platform cannot be reached, nothing is deleted, because its schedules would go on. If it cannot delete users
    (405, 501), all is deleted here, and the answer is 200 with `kept_at_platform`.
    """
    await _delete_at_platform(api, user_id)
    await delete_user(api.resources, caller, user_id, Seal.of(api.resources.settings.mcp_token_keys))
    also_there = await _delete_at_platform(api, user_id)  # a turn under way may have made a schedule meanwhile
    return deleted(also_there=also_there)


async def _delete_at_platform(api: ApiState, user_id: UserId) -> bool:
    """Returns False if the platform cannot delete users."""
    if api.platform is None:
        return True
    async with asking_platform(api, NotFound) as platform:
        return await platform.delete_user(user_id)

"""The instructions that a user gives to models, for all their conversations."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.deps import AppState, AUser
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.schemas import InstructionsIn, InstructionsOut
from backend.api.state import ApiState
from backend.chat.store import instructions
from backend.errors import Forbidden

router = APIRouter(tags=["user"], route_class=CallerRoute, responses=responses(401, 413, 422, 503))


@router.get("/instructions")
async def read_instructions(api: AppState, user_id: AUser) -> InstructionsOut:
    """Returns the instructions of the signed-in user."""
    async with api.resources.database.connection() as c:
        text = await instructions.user_instructions(c, user_id)
    return InstructionsOut(instructions=text, enabled=api.resources.settings.user_instructions)


@router.put("/instructions", responses=responses(400, 403, 408, 415))
async def write_instructions(api: AppState, user_id: AUser, new: InstructionsIn) -> InstructionsOut:
    """Replaces the instructions of the signed-in user. Null or an empty text removes them.

    They follow the operator's system prompt in all conversations of the user, from the next turn on.
    """
    check_enabled(api)
    async with api.resources.database.connection() as c:
        await instructions.set_user_instructions(c, user_id, new.instructions)
    return InstructionsOut(instructions=new.instructions or None, enabled=True)


def check_enabled(api: ApiState) -> None:
    """Raises Forbidden if the operator lets callers give no instructions."""
    if not api.resources.settings.user_instructions:
        raise Forbidden("This server takes no instructions of its users (USER_INSTRUCTIONS).")

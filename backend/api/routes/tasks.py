"""Tasks: their record, their stream, their end."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from backend.api.attaching import STREAM, attach_response, seat_for
from backend.api.deps import Accepts, ACursor, AsCaller, AsIdentity, ATask, AtDesk
from backend.api.desk import CallerRoute
from backend.api.problems import responses
from backend.api.schemas import CancelOut, TaskOut
from backend.chat import cancelling, tasks

router = APIRouter(
    prefix="/tasks", tags=["tasks"], route_class=CallerRoute, responses=responses(401, 404, 413, 422, 503)
)


@router.get("/{task_id}")
async def read_task(desk: AtDesk, caller: AsCaller, task_id: ATask) -> TaskOut:
    """What a task is and how far it has come."""
    async with desk.house.database.connection() as c:
        return TaskOut.of(await tasks.get_task(c, task_id, caller))


@router.head("/{task_id}/stream", include_in_schema=False)
@router.get("/{task_id}/stream", response_class=Response, responses={**STREAM, **responses(400, 410, 429)})
async def follow_task(
    request: Request,
    desk: AtDesk,
    identity: AsIdentity,
    task_id: ATask,
    cursor: ACursor,
    accepts: Accepts,
) -> Response:
    """The task's stream from the cursor to its end; the whole message without one."""
    async with desk.house.database.connection() as c:
        task = await tasks.get_task(c, task_id, identity.caller)
    with seat_for(desk, identity, request.method) as seat:
        return await attach_response(desk, identity, task, cursor, accepts, seat, from_rows=False)


@router.post("/{task_id}/cancel", response_model_exclude_none=True)
async def cancel_task(desk: AtDesk, caller: AsCaller, task_id: ATask) -> CancelOut:
    """Cancels a task, running or waiting. Waits at most 5 s for the executor to confirm."""
    async with desk.house.database.connection() as c:
        task = await tasks.get_task(c, task_id, caller)
    return CancelOut.model_validate(await cancelling.cancel_task(desk.house, task), from_attributes=True)

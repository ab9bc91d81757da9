"""Tasks: read their state, read their stream, cancel them."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response

from backend.api.attaching import STREAM, attach_response, slot_for
from backend.api.deps import Accepts, ACursor, AppState, AsCaller, AsIdentity, ATask
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.schemas import CancelOut, TaskOut, ToolResultOut
from backend.chat.flows import cancel
from backend.chat.part_json import parts_json
from backend.chat.store import history_pages, tasks

router = APIRouter(
    prefix="/tasks", tags=["tasks"], route_class=CallerRoute, responses=responses(401, 404, 413, 422, 503)
)


@router.get("/{task_id}")
async def read_task(api: AppState, caller: AsCaller, task_id: ATask) -> TaskOut:
    """Returns the state of a task."""
    async with api.resources.database.connection() as c:
        return TaskOut.of(await tasks.get_task(c, task_id, caller))


@router.head("/{task_id}/stream", include_in_schema=False)
@router.get("/{task_id}/stream", response_class=Response, responses={**STREAM, **responses(400, 410, 429)})
async def follow_task(
    request: Request,
    api: AppState,
    identity: AsIdentity,
    task_id: ATask,
    cursor: ACursor,
    accepts: Accepts,
) -> Response:
    """Streams the task from its start, or after the cursor, up to its end.

    Answers 410 if the stream has expired.
    """
    async with api.resources.database.connection() as c:
        task = await tasks.get_task(c, task_id, identity.caller)
    with slot_for(api, identity, request.method, task.id) as slot:
        return await attach_response(api, identity, task, cursor, accepts, slot, from_rows=False)


@router.post("/{task_id}/cancel", response_model_exclude_none=True)
async def cancel_task(api: AppState, caller: AsCaller, task_id: ATask) -> CancelOut:
    """Cancels a running or waiting task, and waits up to 5 s for it to end."""
    async with api.resources.database.connection() as c:
        task = await tasks.get_task(c, task_id, caller)
    return CancelOut.model_validate(await cancel.cancel_task(api.resources, task), from_attributes=True)


@router.get(
    "/{task_id}/results/{tool_call_id:path}", response_class=Response, responses={200: {"model": ToolResultOut}}
)
async def read_result(api: AppState, caller: AsCaller, task_id: ATask, tool_call_id: str) -> Response:
    """Returns the whole result of a tool call of the task, which `GET /sessions/{session_id}` may show cut."""
    async with api.resources.database.connection() as c:
        result = await history_pages.get_result(c, task_id, tool_call_id, caller)
    return Response(orjson.dumps(parts_json([result])[0]), media_type="application/json")

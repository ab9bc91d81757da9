"""What other services say of the work that they were asked for: how it goes, and how it ended.

Nothing here runs a model: an outcome is committed, and the conversation goes on in an executor.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends

from backend.api.deps import AtDesk
from backend.api.problems import responses
from backend.api.schemas import CompletedOut, Completion, Ok, ProgressIn
from backend.api.webhooks import WebhookRoute
from backend.chat.completing import complete_operation, tell_progress
from backend.chat.outcomes import Progress
from backend.errors import OperationNotFound, ValidationFailed
from backend.ids import OperationId

router = APIRouter(
    prefix="/operations",
    tags=["operations"],
    route_class=WebhookRoute,
    responses=responses(400, 401, 404, 408, 410, 413, 415, 422, 503),
)
_OPERATION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def _operation_id(operation_id: str) -> OperationId:
    """An id that we cannot have made names nothing."""
    if _OPERATION_ID.fullmatch(operation_id) is None:
        raise OperationNotFound
    return OperationId(operation_id)


AnOperation = Annotated[OperationId, Depends(_operation_id)]


@router.post("/{operation_id}/complete", response_model_exclude_none=True, responses=responses(409))
async def complete(desk: AtDesk, operation_id: AnOperation, completion: Completion) -> CompletedOut:
    """The outcome of an operation. The same again is answered alike; another one, or one too late, changes nothing."""
    if completion.operation_id not in (None, operation_id):
        raise ValidationFailed("This is the outcome of another operation.")
    done = await complete_operation(desk.house, operation_id, completion.outcome())
    if done.next_turn is not None:
        desk.jobs.start(desk.house.outbox.publish(done.next_turn), name="publish")
    return CompletedOut(task_id=done.task_id, replayed=True if done.replayed else None)


@router.post("/{operation_id}/progress", status_code=202)
async def progress(desk: AtDesk, operation_id: AnOperation, said: ProgressIn) -> Ok:
    """How far an operation is: shown to whoever watches it, the newest word only."""
    await tell_progress(desk.house, operation_id, Progress(said.percent, said.message))
    return Ok()

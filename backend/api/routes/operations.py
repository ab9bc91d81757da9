"""Webhooks for the services that carry out operations: they report progress and outcomes.

The API runs no model. It commits an outcome, and an executor continues the conversation.
"""

from __future__ import annotations

from fastapi import APIRouter, Request

from backend.api.deps import AnOperation, AppState
from backend.api.operation_schemas import CompletedOut, Completion, ProgressIn
from backend.api.problems import responses
from backend.api.schemas import Ok
from backend.api.webhooks import WebhookRoute, counting_once
from backend.chat.flows.complete import complete_operation, tell_progress
from backend.chat.outcomes import Progress
from backend.errors import ValidationFailed
from backend.ids import OperationId

router = APIRouter(
    prefix="/operations",
    tags=["operations"],
    route_class=WebhookRoute,
    responses=responses(400, 401, 404, 408, 410, 413, 415, 422, 503),
)


@router.post("/{operation_id}/complete", response_model_exclude_none=True, responses=responses(409))
async def complete(request: Request, api: AppState, operation_id: AnOperation, completion: Completion) -> CompletedOut:
    """Reports the outcome of an operation. The conversation then continues with it.

    The same outcome may be sent again (`replayed`). Another outcome is answered with 409. An outcome for an operation
    that was cancelled or has expired is answered with 410. Neither changes anything. A signed message counts for the
    first operation for which it is sent; for another one it is answered with 409.
    """
    _check_id(completion.operation_id, operation_id)
    async with counting_once(request, operation_id):
        done = await complete_operation(api.resources, operation_id, completion.outcome())
    if done.next_turn is not None:
        api.jobs.start(api.resources.outbox.publish(done.next_turn), name="publish")
    return CompletedOut(task_id=done.task_id, replayed=True if done.replayed else None)


@router.post("/{operation_id}/progress", status_code=202, responses=responses(409))
async def progress(request: Request, api: AppState, operation_id: AnOperation, report: ProgressIn) -> Ok:
    """Reports how far an operation has come. Clients see the newest report. Answers 410 if the operation has ended.

    A signed message counts for the first operation for which it is sent; for another one it is answered with 409.
    """
    _check_id(report.operation_id, operation_id)
    async with counting_once(request, operation_id):
        await tell_progress(api.resources, operation_id, Progress(report.percent, report.message))
    return Ok()


def _check_id(in_body: str | None, in_path: OperationId) -> None:
    if in_body not in (None, in_path):
        raise ValidationFailed("`operation_id` in the body is not the id in the path.")

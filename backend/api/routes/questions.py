"""Answers of users to questions: operations whose outcome comes from the user."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.deps import AnOperation, AppState, AsCaller
from backend.api.operation_schemas import AnsweredOut, AnswerIn
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.chat.flows.answer import answer_question

router = APIRouter(
    prefix="/operations",
    tags=["operations"],
    route_class=CallerRoute,
    responses=responses(400, 401, 404, 408, 409, 410, 413, 415, 422, 503),
)


@router.post("/{operation_id}/answer", response_model_exclude_none=True)
async def answer(api: AppState, caller: AsCaller, operation_id: AnOperation, answer: AnswerIn) -> AnsweredOut:
    """Answers a question to the user, or decides whether a call may run. The conversation then continues.

    The first answer counts, from whichever page. The same answer again changes nothing (`replayed`); another one is
    answered with 409. A question that was cancelled, or whose time is over, is answered with 410.
    """
    done = await answer_question(api.resources, caller, operation_id, answer.answer_given())
    if done.next_turn is not None:
        api.jobs.start(api.resources.outbox.publish(done.next_turn), name="publish")
    return AnsweredOut(task_id=done.task_id, replayed=True if done.replayed else None)

"""Feedback about answers: thumbs with a comment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from backend.api.conversation_schemas import FeedbackIn, FeedbackOut
from backend.api.deps import AppState, AsCaller, ASession, is_task_id
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.chat.models import ANSWER_ID
from backend.chat.store import sessions
from backend.chat.store.conversations import feedback
from backend.errors import MessageNotFound
from backend.ids import TaskId

router = APIRouter(
    prefix="/sessions/{session_id}/messages/{message_id}/feedback",
    tags=["sessions"],
    route_class=CallerRoute,
    responses=responses(401, 404, 413, 422, 503),
)


async def _task_of(
    message_id: Annotated[str, Path(max_length=255, description="The id of an answer, as in `format=ui`.")],
) -> TaskId:
    """Returns the task of an answer. Raises MessageNotFound if this is no id of an answer."""
    task_id = message_id.removeprefix(ANSWER_ID)
    if not message_id.startswith(ANSWER_ID) or not is_task_id(task_id):
        raise MessageNotFound
    return TaskId(task_id)


Answered = Annotated[TaskId, Depends(_task_of)]


@router.put("", responses=responses(400, 408, 415))
async def give_feedback(
    api: AppState, caller: AsCaller, session_id: ASession, task_id: Answered, given: FeedbackIn
) -> FeedbackOut:
    """Stores what the caller thinks of an answer that has ended, in place of what was stored before.

    The history (`format=ui`) and the export have it in the metadata of the answer, as `feedback`.
    """
    async with api.resources.database.connection() as c:
        await sessions.get_session(c, session_id, caller)
        stored = await feedback.set_feedback(c, caller, session_id, task_id, given.rating, given.comment)
    return FeedbackOut.of(f"{ANSWER_ID}{task_id}", stored)


@router.delete("", status_code=204)
async def remove_feedback(api: AppState, caller: AsCaller, session_id: ASession, task_id: Answered) -> None:
    """Removes what is stored about an answer. Does nothing if nothing is."""
    async with api.resources.database.connection() as c:
        await sessions.get_session(c, session_id, caller)
        await feedback.remove_feedback(c, caller, session_id, task_id)

"""Lets the model go on after the last question of a turn, unless the continuation of an answer has done so."""

from __future__ import annotations

from collections.abc import Sequence

from backend.chat.models import ANSWER_ID, Task, TaskKind, TurnRequest
from backend.chat.store import questions, sessions, tasks
from backend.chat.store.questions import AskedQuestion
from backend.chat.store.task_rows import request_json
from backend.ids import new_task_id
from backend.postgres import Connection


async def continue_after_last(c: Connection, ended: Task) -> bool:
    """Inserts the waiting turn that continues the conversation if this task closed the last question of its turn.

    That is so if at least one question was answered or has expired, and each of their continuations has ended without
    the model because another question was open. If the user has cancelled all of them, or they were withdrawn,
    the conversation stays as it is. Returns True if a turn was inserted. The caller holds the session's lock, so of
    two questions that end at the same time only the later one finds all of them closed.
    """
    if ended.kind is not TaskKind.OPERATION:
        return False
    asked = await questions.asked_with(c, ended)
    if not _is_due(asked):
        return False
    turn = await tasks.get_task(c, asked[0].operation.work.turn)
    request = TurnRequest(
        _note_about(asked),
        is_user_message=False,
        takes_questions=turn.request.takes_questions,
        claims=turn.request.claims,
        page_tools=turn.request.page_tools,
        choice=await sessions.choice_of(c, ended.session_id),
        parent=f"{ANSWER_ID}{turn.id}",
    )
    await questions.insert_next(c, ended, new_task_id(), request_json(request))
    return True


def _is_due(asked: Sequence[AskedQuestion]) -> bool:
    over = all(one.operation.status.ended and not one.withdrawn for one in asked)
    untold = all(one.silent or one.operation.digest is None for one in asked)
    return over and untold and any(one.silent for one in asked)


def _note_about(asked: Sequence[AskedQuestion]) -> str:
    closed = [f"the call {one.operation.work.tool_call_id} of the tool {one.operation.work.tool_name}" for one in asked]
    answered = " and behind ".join(call for call, one in zip(closed, asked, strict=True) if one.silent)
    cancelled = " and behind ".join(call for call, one in zip(closed, asked, strict=True) if not one.silent)
    return (
        f"None of your questions is open any longer: the one behind {answered} has its result, and the user has "
        f"cancelled the one behind {cancelled}. The results are the outputs of these calls by now. Go on with them, "
        "and do not ask again what was cancelled. If an answer of yours has used them already, add only what is "
        "missing."
    )

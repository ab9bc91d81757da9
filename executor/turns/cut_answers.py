"""Answers that the user stopped, or that failed in the middle: the model is told that they are not complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.chat.models import Message, NewMessage, NotePart, Role, TaskStatus, TextPart
from backend.ids import TaskId
from executor.agent.agent import Row

_WHY = {
    TaskStatus.CANCELLED: "The user stopped your answer above before it was complete.",
    TaskStatus.FAILED: "Your answer above broke off because of an error, before it was complete; the user was told so.",
}


def with_notes_on_cut_answers(rows: Sequence[Row], stopped: Mapping[TaskId, TaskStatus]) -> list[Row]:
    """Returns the history with a note after each stopped task whose last message has a text.

    The user has seen these texts. Without the note a model takes them for answers, or goes on in their style. A call
    that was cut short needs no note, since its result says so.
    """
    told: list[Row] = []
    for place, row in enumerate(rows):
        told.append(row)
        if not isinstance(row, Message) or row.role is not Role.ASSISTANT or row.task_id not in stopped:
            continue
        after = rows[place + 1] if place + 1 < len(rows) else None
        is_last = not isinstance(after, Message) or after.task_id != row.task_id or after.role is Role.USER
        if is_last and any(isinstance(part, TextPart) for part in row.parts):
            told.append(NewMessage(Role.USER, (NotePart(f"{_WHY[stopped[row.task_id]]} The user has seen it."),)))
    return told

"""The feedback of callers about answers: a thumb up or down, and perhaps a comment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import asyncpg

from backend.chat.models import Caller
from backend.errors import MessageNotFound
from backend.ids import SessionId, TaskId
from backend.postgres import Connection, Row

MAX_COMMENT = 2_000  # characters

Rating: TypeAlias = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Feedback:
    """The feedback of a caller about the answer of a task. `comment` is None if there is none."""

    task_id: TaskId
    rating: Rating
    comment: str | None
    updated_at: datetime


def _parse(row: Row) -> Feedback:
    return Feedback(TaskId(row["task_id"]), row["rating"], row["comment"], row["updated_at"])


# Only the answer of a task that has ended is rated: it has messages of its own, or ended without any.
_RATED = """
SELECT t.id, t.session_id FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.id = $1 AND t.session_id = $2 AND (s.user_id IS NULL OR s.user_id = $3)
  AND t.status IN ('completed', 'failed', 'cancelled')"""
_SET = f"""
INSERT INTO feedback (task_id, session_id, rating, comment) SELECT r.id, r.session_id, $4, $5 FROM ({_RATED}) AS r
ON CONFLICT (task_id) DO UPDATE SET rating = excluded.rating, comment = excluded.comment, updated_at = now()
RETURNING task_id, rating, comment, updated_at"""


async def set_feedback(
    c: Connection, caller: Caller, session_id: SessionId, task_id: TaskId, rating: Rating, comment: str | None
) -> Feedback:
    """Stores what the caller thinks of an answer, in place of what was stored before.

    Raises MessageNotFound if the session has no such answer, or if it still runs.
    """
    try:
        row = await c.fetchrow(_SET, task_id, session_id, caller.user_id, rating, comment or None)
    except asyncpg.ForeignKeyViolationError:  # the session was deleted meanwhile
        row = None
    if row is None:
        raise MessageNotFound
    return _parse(row)


_REMOVE = f"DELETE FROM feedback WHERE task_id IN (SELECT r.id FROM ({_RATED}) AS r)"


async def remove_feedback(c: Connection, caller: Caller, session_id: SessionId, task_id: TaskId) -> None:
    """Removes the feedback about an answer, if there is any."""
    await c.execute(_REMOVE, task_id, session_id, caller.user_id)


_OF_TASKS = "SELECT task_id, rating, comment, updated_at FROM feedback WHERE task_id = ANY($1::text[])"


async def feedback_of(c: Connection, task_ids: Sequence[TaskId]) -> dict[TaskId, Feedback]:
    """Returns what is stored about the answers of these tasks."""
    found = [_parse(row) for row in await c.fetch(_OF_TASKS, task_ids)]
    return {one.task_id: one for one in found}

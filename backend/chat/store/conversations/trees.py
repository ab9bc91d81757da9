"""All messages of a session as a tree, for an export: where each one is, and which ones are on other branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.chat.models import ANSWER_ID, OWN_MESSAGE_ID
from backend.ids import SessionId, TaskId
from backend.postgres import Connection, Row

MAX_TASKS = 20_000
"""The largest number of tasks of a session that has a tree."""


@dataclass(frozen=True, slots=True)
class TreeTask:
    """The messages of one task: a question, an answer, or both.

    `asked` and `answered` are the sequences of the first row of each, or None if the task has none. `after` is the name
    of the message that the first one follows; None: the beginning. `hides_question` and `hides_answer`: it is on
    another branch than the current one. `message_id` is the id that a client gave to the question, or None.
    """

    id: TaskId
    after: str | None
    asked: int | None
    answered: int | None
    hides_question: bool
    hides_answer: bool
    message_id: str | None

    @property
    def question(self) -> str:
        return f"{OWN_MESSAGE_ID}{self.id}"

    @property
    def answer(self) -> str:
        return f"{ANSWER_ID}{self.id}"


_IS_QUESTION = "m.step = 0 AND m.role = 'user'"
_TASKS = f"""
SELECT t.id, t.parent_sequence, p.task_id AS parent_task, p.step = 0 AND p.role = 'user' AS parent_asked,
  min(m.sequence) FILTER (WHERE {_IS_QUESTION}) AS asked,
  min(m.sequence) FILTER (WHERE NOT ({_IS_QUESTION})) AS answered,
  coalesce(bool_or(m.superseded_by IS NOT NULL) FILTER (WHERE {_IS_QUESTION}), false) AS hides_question,
  coalesce(bool_and(m.superseded_by IS NOT NULL) FILTER (WHERE NOT ({_IS_QUESTION})), false) AS hides_answer,
  max(m.message_id) FILTER (WHERE {_IS_QUESTION}) AS message_id
FROM tasks t JOIN messages m ON m.task_id = t.id
LEFT JOIN messages p ON p.session_id = t.session_id AND p.sequence = t.parent_sequence
WHERE t.session_id = $1 GROUP BY t.id, p.task_id, p.step, p.role ORDER BY min(m.sequence) LIMIT $2"""
_HAS_BRANCHES = "SELECT EXISTS (SELECT FROM messages WHERE session_id = $1 AND superseded_by IS NOT NULL)"
_HAS_ORPHANS = """
SELECT EXISTS (SELECT FROM tasks t WHERE t.session_id = $1 AND t.parent_sequence IS NULL
  AND EXISTS (SELECT FROM messages WHERE task_id = t.id))"""


async def tree_of(c: Connection, session_id: SessionId) -> Sequence[TreeTask]:
    """Returns the tasks of a session that have messages, in the order of their first ones: at most MAX_TASKS + 1.

    Returns nothing if the session has only one branch. The caller has checked who may access the session.
    """
    if not await c.fetchval(_HAS_BRANCHES, session_id):
        return []
    return [_parse(row) for row in await c.fetch(_TASKS, session_id, MAX_TASKS + 1)]


async def has_orphans(c: Connection, session_id: SessionId) -> bool:
    """Returns True if the session has branches, and tasks of an older version without a place (`branches.adopt`)."""
    return bool(await c.fetchval(_HAS_BRANCHES, session_id)) and bool(await c.fetchval(_HAS_ORPHANS, session_id))


def _parse(row: Row) -> TreeTask:
    parent, asked = row["parent_task"], row["parent_asked"]
    return TreeTask(
        id=TaskId(row["id"]),
        after=None if parent is None else f"{OWN_MESSAGE_ID if asked else ANSWER_ID}{parent}",
        asked=row["asked"],
        answered=row["answered"],
        hides_question=row["hides_question"],
        hides_answer=row["hides_answer"],
        message_id=row["message_id"],
    )

"""Alternatives: messages that follow the same message, on different branches. One of them is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.chat.models import ANSWER_ID, OWN_MESSAGE_ID, Message, Role, Task
from backend.chat.store.task_rows import COLUMNS, parse_task, with_usage
from backend.ids import SessionId, TaskId
from backend.postgres import Connection

MAX_SIBLINGS = 20
"""The largest number of alternatives that are named. The shown one is always among them."""

_SILENT = f"""
SELECT {COLUMNS}, t.parent_sequence FROM tasks t
WHERE t.session_id = $1 AND t.kind = 'turn' AND t.status IN ('completed', 'failed', 'cancelled')
  AND t.request->>'text' IS NULL AND t.parent_sequence IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM messages WHERE task_id = t.id)"""
_LAST_SILENT = f"""
SELECT t.*, (SELECT parent_sequence FROM tasks WHERE id = t.id) AS question FROM ({with_usage(_SILENT)}) AS t
ORDER BY t.number"""


async def answers_without_messages(c: Connection, session_id: SessionId) -> dict[int, Task]:
    """Maps the sequence of a question to the last task that answered it again and left no messages.

    It failed or was cancelled before its first step, or the model said nothing.
    """
    return {row["question"]: parse_task(row) for row in await c.fetch(_LAST_SILENT, session_id)}


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The alternatives of a shown message, which clients know by `id`.

    `index` is its number among them, from 1, and `count` is how many there are. `siblings` are their names in the tree
    (`store/branches.py`), the oldest first: all of them, or the MAX_SIBLINGS around `shown`, which is its own.
    """

    id: str
    shown: str
    index: int
    count: int
    siblings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Following:
    """The messages that follow some places: for each place, their names in the tree, the oldest first.

    `orphans`: tasks among them have no parent, because an older version made them active (`branches.adopt`).
    """

    names: Mapping[int, Sequence[str]]
    parents: Mapping[TaskId, int]
    orphans: bool = False

    def is_answered(self, question: Message) -> bool:
        """Returns True if the task of this question has answered it, on any branch."""
        return f"{ANSWER_ID}{question.task_id}" in self.names.get(question.sequence, ())


_HAS_BRANCHES = "SELECT EXISTS (SELECT FROM messages WHERE session_id = $1 AND superseded_by IS NOT NULL)"
_PARENTS = "SELECT id, parent_sequence FROM tasks WHERE id = ANY($1::text[])"
_FOLLOWING = """
SELECT p.place, next.task_id, next.asked FROM unnest($2::int[]) AS p (place) CROSS JOIN LATERAL (
    SELECT m.task_id, m.sequence, m.role = 'user' AND t.kind = 'turn'
      AND coalesce((t.request->>'is_user_message')::boolean, true) AS asked
    FROM tasks t CROSS JOIN LATERAL (
      SELECT * FROM messages WHERE task_id = t.id ORDER BY step, part LIMIT 1) AS m
    WHERE t.session_id = $1 AND t.parent_sequence = p.place
  UNION ALL
    SELECT a.task_id, a.sequence, false FROM messages q
    JOIN messages a ON a.session_id = $1 AND a.sequence = q.sequence + 1 AND a.task_id = q.task_id
    WHERE q.session_id = $1 AND q.sequence = p.place AND q.role = 'user' AND q.step = 0
) AS next ORDER BY next.sequence"""


async def following(c: Connection, session_id: SessionId, rows: Sequence[Message]) -> Following:
    """Returns the messages that come right after and right before these messages, on any branch.

    The messages are neighbours on the current branch, in order. Returns nothing if the session has no other branch.
    """
    if not await c.fetchval(_HAS_BRANCHES, session_id):
        return Following({}, {})
    task_ids = list(dict.fromkeys(row.task_id for row in rows))
    found = {TaskId(row["id"]): row["parent_sequence"] for row in await c.fetch(_PARENTS, task_ids)}
    parents = {task_id: parent for task_id, parent in found.items() if parent is not None}
    questions = {row.sequence for row in rows if row.role is Role.USER and not row.steered}
    places = sorted({*parents.values(), *questions, *(row.sequence - 1 for row in rows[:1])})
    names: dict[int, list[str]] = {}
    for row in await c.fetch(_FOLLOWING, session_id, places):
        names.setdefault(row["place"], []).append(_name(row["task_id"], asked=row["asked"]))
    return Following(names, parents, orphans=len(parents) < len(found))


def alternatives_of(rows: Sequence[Message], near: Following, silent: Mapping[int, Task]) -> list[Alternatives]:
    """Returns the alternatives of those shown messages that have any. `silent`: `answers_without_messages`."""
    found: dict[str, Alternatives] = {}
    before: Message | None = None
    for row in rows:
        if before is None or row.task_id != before.task_id:
            _note(found, row, near.names.get(near.parents.get(row.task_id, -1), ()))
        if before is None or (before.role is Role.USER and not before.steered):
            _note(found, row, near.names.get(row.sequence - 1, ()))
        before = row
    if before is not None and (failed := silent.get(before.sequence)) is not None:
        name = failed.message_id
        found[name] = _alternatives(name, name, [*near.names.get(before.sequence, ()), name])
    return [one for one in found.values() if one.count > 1]


def _note(found: dict[str, Alternatives], row: Message, names: Sequence[str]) -> None:
    asked = row.role is Role.USER and not row.steered and row.is_shown
    name = _name(row.task_id, asked=asked)
    id = row.shown_id if asked else name
    if name in names and (id not in found or found[id].count == 1):
        found[id] = _alternatives(id, name, names)


def _name(task_id: str, *, asked: bool) -> str:
    return f"{OWN_MESSAGE_ID if asked else ANSWER_ID}{task_id}"


def _alternatives(id: str, name: str, names: Sequence[str]) -> Alternatives:
    index = names.index(name)
    start = max(0, min(index - MAX_SIBLINGS // 2, len(names) - MAX_SIBLINGS))
    return Alternatives(id, name, index + 1, len(names), tuple(names[start : start + MAX_SIBLINGS]))

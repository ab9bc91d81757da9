"""Writes the tasks and messages of a conversation that was exported elsewhere, or here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from backend.chat.models import AnswerEnd, Caller, NewMessage, TaskError, TaskStatus, TurnRequest
from backend.chat.part_json import parts_json
from backend.chat.store.task_rows import answer_end_json, request_json
from backend.ids import SessionId, TaskId
from backend.postgres import Connection

_BATCH_BYTES = 1 << 20
"""Bytes of messages that one statement writes, roughly."""


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """A message to be stored. `step` is 0 for the question of its turn. `is_current`: it is on the current branch."""

    sequence: int
    step: int
    part: int
    message: NewMessage
    message_id: str | None
    is_current: bool


@dataclass(frozen=True, slots=True)
class ImportedTurn:
    """A turn that has ended, with its messages. `parent` is the sequence that they follow; 0: the beginning."""

    id: TaskId
    request: TurnRequest
    status: TaskStatus
    error: TaskError | None
    end: AnswerEnd | None
    parent: int
    rows: Sequence[ImportedRow]

    @property
    def steps(self) -> int:
        return max((row.step for row in self.rows), default=0)


_TASKS = """
INSERT INTO tasks (id, session_id, user_id, quota_key, request, status, error, answer_end, parent_sequence, steps,
  attempt, started_at, finished_at, published_at)
SELECT t->>'id', $1, $2, $3, t->'request', t->>'status', nullif(t->'error', 'null'), nullif(t->'end', 'null'),
  (t->>'parent')::int, (t->>'steps')::int, 1, now(), now(), now()
FROM jsonb_array_elements($4::jsonb) WITH ORDINALITY AS given (t, n) ORDER BY n"""
_MESSAGES = """
INSERT INTO messages (session_id, sequence, task_id, step, part, role, parts, message_id, superseded_by)
SELECT $1, (m->>'sequence')::int, m->>'task', (m->>'step')::int, (m->>'part')::int, m->>'role', m->'parts',
  m->>'message_id', CASE WHEN NOT (m->>'is_current')::boolean THEN m->>'task' END
FROM json_array_elements($2::json) AS m"""
# PostgreSQL looks up the task of each message. A plan from the time when there were few tasks reads all of them.
_PLAN_AGAIN = "DISCARD PLANS"
_PLACE = """
UPDATE sessions SET last_sequence = $2, title = $3, updated_at = now(),
  unsearched_since = CASE WHEN user_id IS NOT NULL THEN now() END
WHERE id = $1"""


_Batches: TypeAlias = list[list[dict[str, object]]]


@dataclass(frozen=True, slots=True)
class ImportedConversation:
    """The rows of a conversation, in batches of about a mebibyte. `last` is the sequence of its last message."""

    tasks: _Batches
    messages: _Batches
    last: int

    @classmethod
    def of(cls, turns: Sequence[ImportedTurn]) -> ImportedConversation:
        """Makes the rows of these turns. Takes some 100 ms for the largest conversations: call it in a thread."""
        rows = [(turn, row) for turn in turns for row in turn.rows]
        return cls(
            tasks=_batches([_task_json(turn) for turn in turns]),
            messages=_batches([_row_json(turn, row) for turn, row in rows]),
            last=max((row.sequence for _, row in rows), default=0),
        )


async def write_conversation(
    c: Connection, session_id: SessionId, caller: Caller, title: str | None, conversation: ImportedConversation
) -> None:
    """Writes all messages of a session that has none. Requires a transaction, in which the session was created."""
    for some in conversation.tasks:
        await c.execute(_TASKS, session_id, caller.user_id, caller.quota_key, some)
    await c.execute(_PLAN_AGAIN)
    for some in conversation.messages:
        await c.execute(_MESSAGES, session_id, some)
    await c.execute(_PLACE, session_id, conversation.last, title)


def _task_json(turn: ImportedTurn) -> dict[str, object]:
    error, end = turn.error, turn.end
    return {
        "id": turn.id,
        "request": request_json(turn.request),
        "status": turn.status.value,
        "error": None if error is None else {"code": error.code, "message": error.message},
        "end": None if end is None else answer_end_json(end),
        "parent": turn.parent,
        "steps": turn.steps,
    }


def _row_json(turn: ImportedTurn, row: ImportedRow) -> dict[str, object]:
    return {
        "task": turn.id,
        "sequence": row.sequence,
        "step": row.step,
        "part": row.part,
        "role": row.message.role.value,
        "parts": parts_json(row.message.parts),
        "message_id": row.message_id,
        "is_current": row.is_current,
    }


def _batches(rows: Sequence[dict[str, object]]) -> _Batches:
    batches: _Batches = []
    room = 0
    for row in rows:
        size = len(orjson.dumps(row))
        if room < size or not batches:
            batches.append([])
            room = _BATCH_BYTES
        room -= size
        batches[-1].append(row)
    return batches

"""Messages: the durable entries of a session, numbered without gaps."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from backend.chat.models import (
    OWN_MESSAGE_ID,
    FilePart,
    Message,
    NewMessage,
    Role,
    TextPart,
    ToolResultPart,
)
from backend.chat.part_json import parse_parts, parts_json
from backend.errors import Fenced
from backend.ids import SessionId, TaskId
from backend.postgres import Connection, Row

COLUMNS = "session_id, sequence, task_id, step, role, parts, message_id, created_at"


def parse_message(row: Row) -> Message:
    return Message(
        session_id=SessionId(row["session_id"]),
        sequence=row["sequence"],
        task_id=TaskId(row["task_id"]),
        step=row["step"],
        role=Role(row["role"]),
        parts=parse_parts(row["parts"]),
        message_id=row["message_id"],
        created_at=row["created_at"],
    )


_APPEND = f"""
WITH place AS (
    UPDATE sessions SET last_sequence = last_sequence + cardinality($4::text[]), updated_at = now(),
      archived = archived AND NOT $7,
      unsearched_since = CASE WHEN user_id IS NOT NULL AND expires_at IS NULL THEN coalesce(unsearched_since, now()) END
    WHERE id = $1 RETURNING last_sequence - cardinality($4::text[]) AS before
), branch AS (
    SELECT coalesce((SELECT max(sequence) FROM messages WHERE task_id = $2), parent_sequence)
      <> coalesce((SELECT max(sequence) FROM messages WHERE session_id = $1 AND superseded_by IS NULL), 0) AS is_other
    FROM tasks WHERE id = $2
)
INSERT INTO messages (session_id, sequence, task_id, step, part, role, parts, message_id, superseded_by)
SELECT $1, place.before + new.n, $2, $3, new.n - 1, new.role, new.parts, ($6::text[])[new.n],
  CASE WHEN branch.is_other THEN $2 END
FROM place, branch,
  ROWS FROM (unnest($4::text[]), json_array_elements($5::json)) WITH ORDINALITY AS new (role, parts, n)
ORDER BY new.n
RETURNING {COLUMNS}"""


async def append_messages(
    c: Connection,
    session_id: SessionId,
    task_id: TaskId,
    step: int,
    messages: Sequence[NewMessage],
    *,
    message_ids: Sequence[str | None] = (),
) -> list[Message]:
    """Appends the messages of one commit of a task to the branch of the task. `message_ids` are for the first ones.

    They are superseded if another branch is the current one, so the caller holds the session's lock. Raises Fenced if
    another attempt has committed this step of the task, or if the session is gone.
    """
    if not messages:
        return []
    given = list(message_ids)
    roles = [message.role.value for message in messages]
    parts = [parts_json(message.parts) for message in messages]
    users = [message for message in messages if message.role is Role.USER]  # a service's note has neither text nor file
    written = any(isinstance(part, TextPart | FilePart) for message in users for part in message.parts)
    try:
        rows = await c.fetch(_APPEND, session_id, task_id, step, roles, parts, given, written)
    except asyncpg.UniqueViolationError as error:
        raise Fenced from error
    if not rows:
        raise Fenced
    return [parse_message(row) for row in rows]


_VISIBLE = f"""
SELECT {COLUMNS} FROM messages
WHERE session_id = $1 AND superseded_by IS NULL AND ($3::int IS NULL OR sequence < $3)
  AND ($4::text IS NULL OR task_id <> $4 OR step = 0)
ORDER BY sequence DESC LIMIT $2"""


async def visible_messages(
    c: Connection, session_id: SessionId, *, limit: int, before: int | None = None, without_task: TaskId | None = None
) -> list[Message]:
    """Returns the newest `limit` messages of the current branch with a sequence below `before`, in ascending order.

    `without_task` leaves out the messages of a running task, except the user message that it answers (step 0).
    """
    rows = await c.fetch(_VISIBLE, session_id, limit, before, without_task)
    return [parse_message(row) for row in reversed(rows)]


_BY_MESSAGE_ID = f"""
SELECT {COLUMNS} FROM messages
WHERE session_id = $1 AND role = 'user' AND step = 0
  AND (message_id = $2 OR (message_id IS NULL AND '{OWN_MESSAGE_ID}' || task_id = $2))
ORDER BY superseded_by IS NOT NULL, sequence DESC LIMIT 1"""


async def find_user_message(c: Connection, session_id: SessionId, message_id: str) -> Message | None:
    """Returns the question that clients know by this id (`Message.shown_id`). None for one that a turn has taken in.

    An edit keeps the id, so there may be several: then the one on the current branch, or the newest.
    """
    row = await c.fetchrow(_BY_MESSAGE_ID, session_id, message_id)
    return None if row is None else parse_message(row)


_TAKEN_IN = f"""
SELECT {COLUMNS} FROM messages WHERE session_id = $1 AND role = 'user' AND step > 0 AND message_id = $2 LIMIT 1"""


async def find_taken_in(c: Connection, session_id: SessionId, message_id: str) -> Message | None:
    """Returns the message with this id that a turn has taken in (`flows/steering.py`)."""
    row = await c.fetchrow(_TAKEN_IN, session_id, message_id)
    return None if row is None else parse_message(row)


_LAST_OF_USER = f"""
SELECT {COLUMNS} FROM messages
WHERE session_id = $1 AND role = 'user' AND step = 0 AND superseded_by IS NULL AND ($2::int IS NULL OR sequence <= $2)
ORDER BY sequence DESC LIMIT 1"""


async def last_user_message(c: Connection, session_id: SessionId, *, at_or_before: int | None = None) -> Message | None:
    """Returns the last visible user message that began a turn, with a sequence of at most `at_or_before`."""
    row = await c.fetchrow(_LAST_OF_USER, session_id, at_or_before)
    return None if row is None else parse_message(row)


_OF_TASK = f"SELECT {COLUMNS} FROM messages WHERE task_id = $1 ORDER BY step, part"


async def messages_of_task(c: Connection, task_id: TaskId) -> list[Message]:
    """Returns all messages that the task committed, superseded or not, in order; its question is the first."""
    return [parse_message(row) for row in await c.fetch(_OF_TASK, task_id)]


_TAKEN_SINCE = f"""
SELECT {COLUMNS} FROM messages m
WHERE task_id = $1 AND step >= $2 AND role = 'user' AND NOT EXISTS (
  SELECT FROM messages said WHERE said.task_id = $1 AND said.step > m.step AND said.role <> 'user')
ORDER BY step, part"""


async def messages_taken_since(c: Connection, task_id: TaskId, step: int) -> list[Message]:
    """Returns the user messages that the task has taken in from this step on, in order, if no answer follows them."""
    return [parse_message(row) for row in await c.fetch(_TAKEN_SINCE, task_id, step)]


_GIVE_RESULT = """
UPDATE messages SET parts = $3
WHERE task_id = $1 AND role = 'tool' AND parts->0->>'tool_call_id' = $2
  AND (parts->0->'output'->>'type' = 'operation_pending' OR (parts->0->>'is_error')::boolean)"""


async def give_result(c: Connection, turn: TaskId, result: ToolResultPart) -> None:
    """Replaces the result in a turn's tool message, if that result is pending or says that the call was cut short.

    Nothing else ever edits a message.
    """
    await c.execute(_GIVE_RESULT, turn, result.tool_call_id, parts_json([result]))

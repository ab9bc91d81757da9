"""Messages: the durable entries of a session, numbered without gaps, and the JSON of their parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from backend.chat.models import (
    OWN_MESSAGE_ID,
    ContextPart,
    Json,
    Message,
    NewMessage,
    NotePart,
    Part,
    ReasoningPart,
    Role,
    SourcePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from backend.errors import Fenced
from backend.ids import SessionId, TaskId
from backend.postgres import Connection, Row

_COLUMNS = "session_id, sequence, task_id, step, role, parts, message_id, created_at"

_APPEND = f"""
WITH place AS (
    UPDATE sessions SET last_sequence = last_sequence + cardinality($4::text[]), updated_at = now()
    WHERE id = $1 RETURNING last_sequence - cardinality($4::text[]) AS before
)
INSERT INTO messages (session_id, sequence, task_id, step, part, role, parts, message_id)
SELECT $1, place.before + new.n, $2, $3, new.n - 1, new.role, new.parts, CASE new.n WHEN 1 THEN $6 END
FROM place, ROWS FROM (unnest($4::text[]), json_array_elements($5::json)) WITH ORDINALITY AS new (role, parts, n)
ORDER BY new.n
RETURNING {_COLUMNS}"""

_VISIBLE = f"""
SELECT {_COLUMNS} FROM messages
WHERE session_id = $1 AND superseded_by IS NULL AND ($3::int IS NULL OR sequence < $3)
  AND ($4::text IS NULL OR task_id <> $4 OR step = 0)
ORDER BY sequence DESC LIMIT $2"""

_BY_MESSAGE_ID = f"""
SELECT {_COLUMNS} FROM messages
WHERE session_id = $1 AND role = 'user' AND superseded_by IS NULL
  AND (message_id = $2 OR (message_id IS NULL AND '{OWN_MESSAGE_ID}' || task_id = $2))
ORDER BY sequence DESC LIMIT 1"""

_LAST_OF_USER = f"""
SELECT {_COLUMNS} FROM messages
WHERE session_id = $1 AND role = 'user' AND superseded_by IS NULL AND ($2::int IS NULL OR sequence <= $2)
ORDER BY sequence DESC LIMIT 1"""

_OF_TASK = f"SELECT {_COLUMNS} FROM messages WHERE task_id = $1 ORDER BY step, part"

_GIVE_RESULT = """
UPDATE messages SET parts = $3
WHERE task_id = $1 AND role = 'tool' AND parts->0->>'tool_call_id' = $2
  AND (parts->0->'output'->>'type' = 'operation_pending' OR (parts->0->>'is_error')::boolean)"""

_SUPERSEDE = """
UPDATE messages SET superseded_by = $3
WHERE session_id = $1 AND sequence >= $2 AND task_id <> $3 AND superseded_by IS NULL"""


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


def parts_json(parts: Sequence[Part]) -> list[Json]:
    """What is stored of a message's parts: one object each, `type` first, without what is not set."""
    return [_part_json(part) for part in parts]


def _part_json(part: Part) -> Json:
    document: dict[str, Json] = {"type": part.type}
    match part:
        case TextPart() | NotePart():
            document |= {"text": part.text}
        case ReasoningPart():
            document |= {"text": part.text, "signature": part.signature, "redacted": part.redacted}
        case SourcePart():
            document |= {"sourceId": part.source_id, "url": part.url, "title": part.title}
        case ToolCallPart():
            return document | {"tool_call_id": part.tool_call_id, "tool_name": part.tool_name, "input": part.input}
        case ToolResultPart():
            call = {"tool_call_id": part.tool_call_id, "tool_name": part.tool_name}
            return document | call | {"output": part.output, "is_error": part.is_error}
        case ContextPart():
            document |= {"url": part.url, "content": part.content}
    return {name: value for name, value in document.items() if value is not None}


_PARSERS: dict[str, Callable[[dict[str, Any]], Part]] = {
    "text": lambda d: TextPart(d["text"]),
    "reasoning": lambda d: ReasoningPart(d["text"], d.get("signature"), d.get("redacted")),
    "source-url": lambda d: SourcePart(d["sourceId"], d["url"], d.get("title")),
    "tool_call": lambda d: ToolCallPart(d["tool_call_id"], d["tool_name"], d["input"]),
    "tool_result": lambda d: ToolResultPart(d["tool_call_id"], d["tool_name"], d["output"], d.get("is_error", False)),
    "context": lambda d: ContextPart(d.get("url"), d.get("content")),
    "note": lambda d: NotePart(d["text"]),
}


def parse_parts(documents: Sequence[dict[str, Any]]) -> tuple[Part, ...]:
    """The reverse of `parts_json`. Leaves out parts of a type that a newer version wrote."""
    return tuple(_PARSERS[document["type"]](document) for document in documents if document["type"] in _PARSERS)


async def append_messages(
    c: Connection,
    session_id: SessionId,
    task_id: TaskId,
    step: int,
    messages: Sequence[NewMessage],
    *,
    message_id: str | None = None,
) -> list[Message]:
    """Writes the messages of one commit of a task as the session's next; locks the session's row until the commit.

    `message_id` goes to the first. Raises Fenced when this step of the task is there already (another attempt
    committed it), or the session is gone and its tasks with it.
    """
    if not messages:
        return []
    roles = [message.role.value for message in messages]
    parts = [parts_json(message.parts) for message in messages]
    try:
        rows = await c.fetch(_APPEND, session_id, task_id, step, roles, parts, message_id)
    except asyncpg.UniqueViolationError as error:
        raise Fenced from error
    if not rows:
        raise Fenced
    return [parse_message(row) for row in rows]


async def visible_messages(
    c: Connection, session_id: SessionId, *, limit: int, before: int | None = None, without_task: TaskId | None = None
) -> list[Message]:
    """The newest `limit` rows below `before`, in ascending order, without superseded ones.

    `without_task` leaves out a running answer's rows, but not its user message (step 0).
    """
    rows = await c.fetch(_VISIBLE, session_id, limit, before, without_task)
    return [parse_message(row) for row in reversed(rows)]


async def find_user_message(c: Connection, session_id: SessionId, message_id: str) -> Message | None:
    """The visible user message with that id (`Message.shown_id`)."""
    row = await c.fetchrow(_BY_MESSAGE_ID, session_id, message_id)
    return None if row is None else parse_message(row)


async def last_user_message(c: Connection, session_id: SessionId, *, at_or_before: int | None = None) -> Message | None:
    row = await c.fetchrow(_LAST_OF_USER, session_id, at_or_before)
    return None if row is None else parse_message(row)


async def messages_of_task(c: Connection, task_id: TaskId) -> list[Message]:
    """All that the task committed, in order, its user message first; superseded or not."""
    return [parse_message(row) for row in await c.fetch(_OF_TASK, task_id)]


async def supersede_from(c: Connection, session_id: SessionId, sequence: int, by: TaskId) -> None:
    """Hides the session's rows from `sequence` on, except those of the task that takes their place."""
    await c.execute(_SUPERSEDE, session_id, sequence, by)


async def give_result(c: Connection, turn: TaskId, result: ToolResultPart) -> None:
    """Puts a result in the place of the pending one that a turn's tool message holds, or of a call that was cut short:
    the only edit of a message."""
    await c.execute(_GIVE_RESULT, turn, result.tool_call_id, parts_json([result]))

"""Pages of a conversation as people see it: without hidden parts, and bounded in bytes.

Postgres cuts long outputs of tools and leaves out hidden parts, so that megabytes of them never leave it. Pages of a
session's tasks are here, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.chat.models import Caller, Message, Task, ToolResultPart
from backend.chat.part_json import parse_parts
from backend.chat.protocol.chunks import MAX_OUTPUT_CHARS
from backend.chat.protocol.tool_outputs import MEMBERS
from backend.chat.store.messages import parse_message
from backend.chat.store.task_rows import COLUMNS, parse_task, with_usage
from backend.errors import ResultNotFound, TaskNotFound
from backend.ids import SessionId, TaskId
from backend.postgres import Connection

PAGE_BYTES = 1_048_576
"""The largest number of bytes that the messages of a page have as JSON."""
SHORTEST_CUT = 256
"""Characters of an output that are shown even if a page becomes too large."""
_SMALL = 8_192
"""Bytes of a row that is read as it is."""

_STORED_SHARE = 16
"""A page ends at PAGE_BYTES shown bytes. Stored bytes that are not shown count a sixteenth, so Postgres reads at most
16 * PAGE_BYTES for a page, plus one row.
"""

_COLUMNS = "m.session_id, m.sequence, m.task_id, m.step, m.role, m.message_id, m.created_at"
_MEMBERS = ", ".join(f"{name} json" for name in MEMBERS)
_MEMBER_VALUES = ", ".join(f"'{name}', {name}" for name in MEMBERS)


def _shown(most: str) -> str:
    """Returns SQL for the shown parts of the message `m`, with outputs cut to `most` characters (`Excerpt`).

    `size` are the bytes of the whole row. OFFSET 0 keeps Postgres from parsing a long output once for each use of it.
    """
    return f"""
SELECT stored.size, CASE
  WHEN stored.size <= {_SMALL} THEN m.parts
  WHEN m.role = 'user' THEN (
    SELECT coalesce(json_agg(element ORDER BY place), '[]')
    FROM json_array_elements(m.parts) WITH ORDINALITY AS p (element, place)
    WHERE element->>'type' NOT IN ('context', 'note'))
  WHEN m.role = 'tool' THEN (
    SELECT CASE WHEN length(text) <= {most} THEN m.parts ELSE json_build_array(json_build_object(
      'type', 'tool_result', 'tool_call_id', tool_call_id, 'tool_name', tool_name, 'is_error', is_error,
      'beginning', left(text, {most}), 'characters', length(text),
      'output', CASE json_typeof(output) WHEN 'object' THEN (
        SELECT json_strip_nulls(json_build_object({_MEMBER_VALUES})) FROM json_to_record(output) AS o ({_MEMBERS})
      ) END)) END
    FROM (
      SELECT *, CASE json_typeof(output) WHEN 'string' THEN output #>> '{{}}' ELSE output::text END AS text
      FROM json_to_record(m.parts->0) AS r (tool_call_id text, tool_name text, is_error boolean, output json) OFFSET 0
    ) AS result)
  ELSE m.parts END AS parts
FROM (SELECT octet_length(m.parts::text) AS size OFFSET 0) AS stored OFFSET 0"""


@dataclass(frozen=True, slots=True)
class NewestMessages:
    """Messages in ascending order. `older`: there are visible ones before them."""

    rows: list[Message]
    older: bool


_VISIBLE = "session_id = $1 AND superseded_by IS NULL AND ($4::text IS NULL OR task_id <> $4 OR step = 0)"
# Reads one message after the other, newest first, and none after the page is full.
_NEWEST = f"""
WITH RECURSIVE page AS (
  SELECT $1::text AS session_id, coalesce($3::int, 2147483647) AS sequence, NULL::text AS task_id, NULL::int AS step,
    NULL::text AS role, NULL::text AS message_id, NULL::timestamptz AS created_at, NULL::json AS parts,
    0 AS place, 0::bigint AS bytes
  UNION ALL
  SELECT {_COLUMNS}, shown.parts, page.place + 1,
    page.bytes + octet_length(shown.parts::text) + shown.size / {_STORED_SHARE}
  FROM page
  CROSS JOIN LATERAL (
    SELECT * FROM messages WHERE {_VISIBLE} AND sequence < page.sequence ORDER BY sequence DESC LIMIT 1) AS m
  CROSS JOIN LATERAL ({_shown("$6")}) AS shown
  WHERE page.place < $2 AND page.bytes < $5)
SELECT page.*,
  EXISTS (SELECT 1 FROM messages WHERE {_VISIBLE} AND sequence < (SELECT min(sequence) FROM page)) AS older
FROM page WHERE place > 0 ORDER BY sequence"""


async def newest_messages(
    c: Connection, session_id: SessionId, *, limit: int, before: int | None = None, without_task: TaskId | None = None
) -> NewestMessages:
    """Returns the newest messages with a sequence below `before`, without superseded ones.

    They are at most `limit`, or fewer if those reach PAGE_BYTES. `without_task` leaves out the messages of a running
    task, except the user message that it answers (step 0).
    """
    rows = await c.fetch(_NEWEST, session_id, limit, before, without_task, PAGE_BYTES, MAX_OUTPUT_CHARS)
    return NewestMessages([parse_message(row) for row in rows], bool(rows) and rows[0]["older"])


_SIZES = """
SELECT octet_length(parts::text) AS size FROM messages WHERE task_id = $1 AND sequence < $2 AND role = 'tool'"""
_EARLIER = f"""
SELECT {_COLUMNS}, shown.parts FROM messages m CROSS JOIN LATERAL ({_shown("$3")}) AS shown
WHERE m.task_id = $1 AND m.sequence < $2 ORDER BY m.step, m.part"""


async def earlier_messages_of_task(c: Connection, task_id: TaskId, before: int) -> list[Message]:
    """Returns the messages of a task with a sequence below `before`, superseded or not, in order.

    Their outputs are cut so far that they have at most PAGE_BYTES together.
    """
    sizes = [row["size"] for row in await c.fetch(_SIZES, task_id, before)]
    rows = await c.fetch(_EARLIER, task_id, before, _cut_for(sizes))
    return [parse_message(row) for row in rows]


def _cut_for(sizes: Sequence[int]) -> int:
    most = MAX_OUTPUT_CHARS
    while most > SHORTEST_CUT and sum(min(size, most) for size in sizes) > PAGE_BYTES:
        most //= 2
    return most


_RESULT = """
SELECT coalesce(
  (SELECT found FROM messages m CROSS JOIN LATERAL json_array_elements(m.parts) AS found
   WHERE m.task_id = t.id AND m.role = 'tool' AND found->>'type' = 'tool_result' AND found->>'tool_call_id' = $2
   ORDER BY m.step, m.part LIMIT 1),
  CASE WHEN t.tool_call_id = $2 AND t.result IS NOT NULL THEN json_build_object(
    'type', 'tool_result', 'tool_call_id', t.tool_call_id, 'tool_name', t.tool_name, 'output', t.result) END) AS found
FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.id = $1 AND (s.user_id IS NULL OR s.user_id = $3)"""


async def get_result(c: Connection, task_id: TaskId, tool_call_id: str, caller: Caller) -> ToolResultPart:
    """Returns the whole result of a tool call: one that the task made, or the one for which the operation was begun.

    Raises TaskNotFound if the caller may not access the task's session, and ResultNotFound.
    """
    row = await c.fetchrow(_RESULT, task_id, tool_call_id, caller.user_id)
    if row is None:
        raise TaskNotFound
    found = parse_parts([row["found"]]) if row["found"] is not None else ()
    if not found or not isinstance(found[0], ToolResultPart):
        raise ResultNotFound
    return found[0]


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of tasks. `older` is the number before which the next page begins, or None. `total` counts all pages."""

    tasks: Sequence[Task]
    older: int | None
    total: int


_OF_SESSION = """session_id = $1 AND status = ANY($2::text[])
  AND ($3::timestamptz IS NULL OR coalesce(finished_at, started_at, created_at) >= $3)"""
_TASK_PAGE = with_usage(
    f"SELECT {COLUMNS} FROM tasks t WHERE {_OF_SESSION} AND number < $4 ORDER BY number DESC LIMIT $5", "t.number DESC"
)
_TASK_TOTAL = f"SELECT count(*) FROM tasks WHERE {_OF_SESSION}"


async def tasks_of_session(
    c: Connection, session_id: SessionId, *, statuses: Sequence[str], since: datetime | None, before: int, limit: int
) -> TaskPage:
    """Returns up to `limit` tasks whose numbers are below `before`, and which got one of these statuses at `since` or
    later (None: at any time).
    """
    rows = [parse_task(row) for row in await c.fetch(_TASK_PAGE, session_id, statuses, since, before, limit + 1)]
    shown = rows[:limit]
    total: int = await c.fetchval(_TASK_TOTAL, session_id, statuses, since)
    return TaskPage(shown, shown[-1].number if len(rows) > limit else None, total)

"""Answers that left no rows: regenerations that failed, or were cancelled, before their first step was committed.

Nothing in `messages` says that they were asked for. A session's turns run one after the other, so time does: such a
task answered the last question that was visible when it began.
"""

from __future__ import annotations

from backend.chat.models import Task
from backend.chat.task_rows import COLUMNS, parse_task, reading
from backend.ids import SessionId
from backend.postgres import Connection

_SILENT = f"""
SELECT {COLUMNS} FROM tasks t
WHERE t.session_id = $1 AND t.kind = 'turn' AND t.status IN ('failed', 'cancelled') AND t.request->>'text' IS NULL
  AND NOT EXISTS (SELECT 1 FROM messages WHERE task_id = t.id)
  AND NOT EXISTS (  -- cancelled while it waited: another ran at that time
    SELECT 1 FROM tasks o
    WHERE o.session_id = $1 AND o.id <> t.id AND o.started_at < t.started_at
      AND coalesce(o.finished_at, 'infinity') > t.started_at)"""

_QUESTION = """
SELECT m.sequence, m.superseded_by FROM messages m LEFT JOIN tasks s ON s.id = m.superseded_by
WHERE m.session_id = $1 AND m.role = 'user' AND m.created_at <= t.started_at
  AND (m.superseded_by IS NULL OR coalesce(s.started_at, 'infinity') > t.started_at)
ORDER BY m.sequence DESC LIMIT 1"""

_LAST_SILENT = f"""
SELECT t.*, q.sequence AS question FROM ({reading(_SILENT)}) AS t CROSS JOIN LATERAL ({_QUESTION}) AS q
WHERE q.superseded_by IS NULL ORDER BY t.started_at"""


async def silent_answers(c: Connection, session_id: SessionId) -> dict[int, Task]:
    """By the sequence of each visible question: the last answer to it that left no rows."""
    return {row["question"]: parse_task(row) for row in await c.fetch(_LAST_SILENT, session_id)}

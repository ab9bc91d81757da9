"""Questions to the user: operations whose outcome comes from the user (`request.asks` in their rows).

A turn may ask several. The continuation of an answer ends without the model while another one is open (`others_open`),
so the model goes on when the last one is closed.
"""

from __future__ import annotations

from typing import NamedTuple

from backend.chat.models import Task
from backend.chat.outcomes import Operation
from backend.chat.store.operations import COLUMNS, PENDING, parse_operation
from backend.ids import SessionId, TaskId
from backend.postgres import Connection

_ASKS = "kind = 'operation' AND request->'asks' IS NOT NULL"
_WITHDRAW = """
UPDATE tasks SET cancel_requested_at = now(), deadline_at = now(), request = request || '{"withdrawn": true}'"""

_WITHDRAW_OF_TURN = f"{_WITHDRAW} WHERE session_id = $1 AND request->>'turn' = $2 AND {_ASKS} AND {PENDING}"


async def withdraw_questions(c: Connection, session_id: SessionId, turn: TaskId) -> None:
    """Requests the cancellation of a turn's open questions. The sweeper ends them."""
    await c.execute(_WITHDRAW_OF_TURN, session_id, turn)


_WITHDRAW_SUPERSEDED = f"""{_WITHDRAW}
WHERE session_id = $1 AND {_ASKS} AND {PENDING}
  AND request->>'turn' IN (SELECT task_id FROM messages WHERE session_id = $1 AND superseded_by = $2)"""


async def withdraw_superseded_questions(c: Connection, session_id: SessionId, by: TaskId) -> None:
    """Requests the cancellation of open questions whose turn this task has replaced. The sweeper ends them."""
    await c.execute(_WITHDRAW_SUPERSEDED, session_id, by)


_OTHERS = f"""
SELECT EXISTS (SELECT 1 FROM tasks WHERE session_id = $1 AND request->>'turn' = $2 AND id <> $3
  AND status IN ('queued', 'running') AND cancel_requested_at IS NULL AND {_ASKS})"""


async def others_open(c: Connection, operation: Operation) -> bool:
    """Returns True while another question of the same turn has no answer, or its continuation has not ended."""
    return bool(await c.fetchval(_OTHERS, operation.session_id, operation.work.turn, operation.task_id))


class AskedQuestion(NamedTuple):
    """A question. `silent`: its continuation has ended without the model. `withdrawn`: the server has cancelled it."""

    operation: Operation
    silent: bool
    withdrawn: bool


_ASKED_WITH = f"""
SELECT {COLUMNS}, t.request->'withdrawn' IS NOT NULL AS withdrawn,
  t.status = 'completed' AND t.answer_end->>'reason' = 'tool-calls'
    AND NOT EXISTS (SELECT FROM messages WHERE task_id = t.id AND step > 0) AS silent
FROM tasks own JOIN tasks t ON t.session_id = own.session_id AND t.request->>'turn' = own.request->>'turn'
WHERE own.id = $1 AND own.request->'asks' IS NOT NULL
  AND t.kind = 'operation' AND t.request->'asks' IS NOT NULL AND t.checkpoint IS NOT NULL
ORDER BY t.number"""


async def asked_with(c: Connection, task: Task) -> list[AskedQuestion]:
    """Returns this task's question, and the others that the same turn asked.

    Leaves out those that were never shown to the user. Empty if the task is no question.
    """
    rows = await c.fetch(_ASKED_WITH, task.id)
    return [AskedQuestion(parse_operation(row), row["silent"], row["withdrawn"]) for row in rows]


_INSERT_NEXT = """
INSERT INTO tasks (id, session_id, user_id, quota_key, request)
SELECT $2, session_id, user_id, quota_key, $3 FROM tasks WHERE id = $1"""


async def insert_next(c: Connection, question: Task, task_id: TaskId, request: object) -> None:
    """Inserts a waiting turn with this request for the user of a question. The caller holds the session's lock."""
    await c.execute(_INSERT_NEXT, question.id, task_id, request)


_LIVE = f"""
SELECT {COLUMNS}, EXISTS (SELECT 1 FROM tasks turn JOIN tasks next USING (session_id)
  WHERE turn.id = t.request->>'turn' AND turn.active_session_id IS NOT NULL
    AND next.kind = 'turn' AND next.status = 'queued') AS others_wait
FROM tasks t WHERE t.id = $1"""


async def find_live(c: Connection, task_id: TaskId) -> tuple[Operation, bool] | None:
    """Returns a question for which a call waits, and whether a message of the user waits for the end of its turn.

    Returns None if its session was deleted.
    """
    row = await c.fetchrow(_LIVE, task_id)
    return None if row is None else (parse_operation(row), row["others_wait"])


_ALWAYS_ALLOWED = """
SELECT EXISTS (SELECT 1 FROM tasks WHERE session_id = $1 AND kind = 'operation'
  AND request->'asks'->>'text' = $2 AND outcome->>'always' = 'true')"""


async def is_always_allowed(c: Connection, session_id: SessionId, tool_name: str) -> bool:
    """Returns True if a user has allowed all further calls of the tool in this session."""
    return bool(await c.fetchval(_ALWAYS_ALLOWED, session_id, tool_name))

"""Operations: long work of another service, each a task that is outside until its outcome comes.

An operation is inserted before the service is asked, so that no outcome can come too early. While it is outside, its
task is `running`, not active, and nobody's; its outcome is set once, by one statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.chat.models import Caller, Json, TaskStatus
from backend.chat.outcomes import Operation, Outcome, Progress, ToolWork, Use
from backend.errors import OperationNotFound
from backend.ids import ExecutorId, OperationId, SessionId, TaskId, UserId, new_operation_id, new_task_id
from backend.postgres import Connection, Row

CANCELLED: Json = {"type": "error", "message": "The work was cancelled.", "error": "cancelled"}
"""The result of one that was cancelled."""
_COLUMNS = """t.id, t.number, t.session_id, t.user_id, t.status, t.attempt, t.cancel_requested_at, t.checkpoint,
  t.operation_id, t.tool_name, t.tool_call_id, t.request, t.outcome, t.result, t.progress, t.created_at,
  t.deadline_at"""

_INSERT = f"""
INSERT INTO tasks AS t (id, session_id, user_id, quota_key, kind, status, attempt, request, tool_name, operation_id,
  tool_call_id, deadline_at)
SELECT $2, s.id, asks.user_id, coalesce('user:' || asks.user_id, 'session:' || s.id), 'operation', 'running', 1,
  $3::jsonb, $4, $5, $6, now() + make_interval(secs => $7)
FROM sessions s LEFT JOIN tasks turn ON turn.id = $3::jsonb->>'turn'
  CROSS JOIN LATERAL (SELECT coalesce(s.user_id, turn.user_id) AS user_id) AS asks  -- a user, in nobody's session
WHERE s.id = $1
ON CONFLICT (session_id, tool_call_id) DO NOTHING
RETURNING {_COLUMNS}"""

_SELECT = f"SELECT {_COLUMNS} FROM tasks t WHERE t.kind = 'operation'"
_BY_CALL = f"{_SELECT} AND session_id = $1 AND tool_call_id = $2"
_BY_ID = f"{_SELECT} AND operation_id = $1"
_BY_ID_LOCKED = f"{_BY_ID} FOR NO KEY UPDATE"
_BY_TASKS = f"{_SELECT} AND id = ANY($1::text[])"
_UNENDED = f"{_SELECT} AND session_id = $1 AND status IN ('queued', 'running') ORDER BY number"
_OF_CALLER = f"""
SELECT {_COLUMNS} FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.kind = 'operation' AND (t.operation_id = $1 OR t.id = $1) AND (s.user_id IS NULL OR s.user_id = $2)"""
_RESULTS = """
SELECT tool_call_id, result FROM tasks
WHERE session_id = $1 AND tool_call_id = ANY($2::text[]) AND result IS NOT NULL"""

_OUTSIDE = "kind = 'operation' AND status = 'running' AND owner IS NULL AND outcome IS NULL"

_OPEN = f"""
UPDATE tasks SET checkpoint = $2, deadline_at = now() + make_interval(secs => $3)
WHERE id = $1 AND attempt = 1 AND {_OUTSIDE} RETURNING 1"""

# its place among the session's waiting turns is behind those that were accepted before its outcome
_CONTINUE = f"""
UPDATE tasks AS t SET status = 'queued', published_at = NULL, active_since = now(), deadline_at = NULL, result = $3,
  outcome = $2::jsonb || jsonb_build_object('place', nextval('tasks_number_seq')),
  request = request || jsonb_build_object('text', $4::text),
  active_session_id = CASE WHEN NOT EXISTS (SELECT 1 FROM tasks o WHERE o.active_session_id = t.session_id)
    THEN session_id END
WHERE id = $1 AND {_OUTSIDE} AND cancel_requested_at IS NULL
RETURNING active_session_id IS NOT NULL"""

_SETTLE = f"""
UPDATE tasks SET outcome = $2, result = $3, deadline_at = NULL, status = $4, finished_at = now()
WHERE id = $1 AND {_OUTSIDE} AND cancel_requested_at IS NULL RETURNING 1"""

_GIVE_UP = f"UPDATE tasks AS t SET result = $2 WHERE id = $1 AND result IS NULL RETURNING {_COLUMNS}"

_DROP_UNOPENED = f"""
UPDATE tasks SET status = 'cancelled', deadline_at = NULL, finished_at = now()
WHERE session_id = $1 AND request->>'turn' = $2 AND checkpoint IS NULL AND {_OUTSIDE}"""

_NOTE_PROGRESS = f"UPDATE tasks SET progress = $2 WHERE id = $1 AND {_OUTSIDE} RETURNING attempt"

# by the index of deadlines: what is outside has one, and nothing else
_RUN = f"deadline_at IS NOT NULL AND {_OUTSIDE} AND request->>'runner' IS NOT NULL"
_RUNNERS = f"SELECT DISTINCT request->>'runner' AS runner FROM tasks WHERE {_RUN}"
_RUN_BY = f"SELECT {_COLUMNS} FROM tasks t WHERE {_RUN} AND request->>'runner' = $1"

_OVERDUE = f"""
SELECT {_COLUMNS} FROM tasks t
WHERE deadline_at < now() AND {_OUTSIDE} ORDER BY deadline_at LIMIT $1"""


def parse_operation(row: Row) -> Operation:
    outcome: dict[str, Any] | None = row["outcome"]
    request: dict[str, Any] = row["request"]
    progress: dict[str, Any] | None = row["progress"]
    return Operation(
        id=OperationId(row["operation_id"]),
        task_id=TaskId(row["id"]),
        number=row["number"],
        session_id=SessionId(row["session_id"]),
        user_id=None if row["user_id"] is None else UserId(row["user_id"]),
        status=TaskStatus(row["status"]),
        attempt=row["attempt"],
        cancel_requested=row["cancel_requested_at"] is not None,
        opened=row["checkpoint"] is not None,
        work=ToolWork(
            turn=TaskId(request["turn"]),
            tool_name=row["tool_name"],
            tool_call_id=row["tool_call_id"],
            input=request["input"],
            use=Use(request["use"]),
            order=request.get("order"),
            graph_id=request.get("graph_id"),
            runner=request.get("runner"),
        ),
        digest=None if outcome is None else outcome["digest"],
        result=row["result"],
        progress=None if progress is None else Progress(progress.get("percent"), progress.get("message")),
        created_at=row["created_at"],
        deadline_at=row["deadline_at"],
    )


def _request_json(work: ToolWork) -> Json:
    return {
        "text": None,
        "is_user_message": False,
        "turn": work.turn,
        "input": work.input,
        "use": work.use.value,
        "order": work.order,
        "graph_id": work.graph_id,
        "runner": work.runner,
    }


async def register(c: Connection, session_id: SessionId, work: ToolWork, *, limit: float) -> Operation:
    """The operation of a tool call: a new one, which ends after `limit` seconds unless it is opened, or the one that
    the call has already. Raises OperationNotFound when the session is gone."""
    ids = new_task_id(), new_operation_id()
    row = await c.fetchrow(
        _INSERT, session_id, ids[0], _request_json(work), work.tool_name, ids[1], work.tool_call_id, limit
    )
    if row is not None:
        return parse_operation(row)
    found = await find_by_call(c, session_id, work.tool_call_id)
    if found is None:
        raise OperationNotFound
    return found


async def find_by_call(c: Connection, session_id: SessionId, tool_call_id: str) -> Operation | None:
    row = await c.fetchrow(_BY_CALL, session_id, tool_call_id)
    return None if row is None else parse_operation(row)


async def get_operation(c: Connection, operation_id: OperationId, *, lock: bool = False) -> Operation:
    """For services and ourselves, whoever it belongs to. With `lock` the caller holds its session's lock. Raises
    OperationNotFound."""
    row = await c.fetchrow(_BY_ID_LOCKED if lock else _BY_ID, operation_id)
    if row is None:
        raise OperationNotFound
    return parse_operation(row)


async def get_operation_of(c: Connection, id: str, caller: Caller) -> Operation:
    """By its operation id or its task's id. Raises OperationNotFound, also when its session cannot be reached."""
    row = await c.fetchrow(_OF_CALLER, id, caller.user_id)
    if row is None:
        raise OperationNotFound
    return parse_operation(row)


async def operations_of_tasks(c: Connection, task_ids: Sequence[TaskId]) -> dict[TaskId, Operation]:
    """Those of the tasks that are operations."""
    found = [parse_operation(row) for row in await c.fetch(_BY_TASKS, task_ids)]
    return {operation.task_id: operation for operation in found}


async def unended_operations(c: Connection, session_id: SessionId) -> list[Operation]:
    """All of the session's that are outside, or whose continuation has not ended."""
    return [parse_operation(row) for row in await c.fetch(_UNENDED, session_id)]


async def results_of(c: Connection, session_id: SessionId, tool_call_ids: Sequence[str]) -> Mapping[str, Json]:
    """By call: the results of those that have begun an operation which has one."""
    return {row["tool_call_id"]: row["result"] for row in await c.fetch(_RESULTS, session_id, tool_call_ids)}


async def open_operation(c: Connection, operation: Operation, checkpoint: str, *, limit: float) -> bool:
    """Notes that the other service has accepted it and that its stream stands at `checkpoint`; it has `limit` seconds
    from now. False: it is not outside any more, as its outcome has come already."""
    return await c.fetchval(_OPEN, operation.task_id, checkpoint, limit) is not None


async def continue_operation(
    c: Connection, operation: Operation, outcome: Outcome, result: Json, note: str
) -> bool | None:
    """Sets its outcome and queues its continuation, which tells the model `note`. Whether it is the session's active
    task now; None when it is not outside any more. The caller holds the session's lock."""
    active: bool | None = await c.fetchval(
        _CONTINUE, operation.task_id, {"success": outcome.success, "digest": outcome.digest}, result, note
    )
    return active


async def settle_operation(c: Connection, operation: Operation, outcome: Outcome, result: Json) -> bool:
    """Sets its outcome and ends it, without a continuation. False when it is not outside any more."""
    status = TaskStatus.COMPLETED if outcome.success else TaskStatus.FAILED
    stored = {"success": outcome.success, "digest": outcome.digest}
    return await c.fetchval(_SETTLE, operation.task_id, stored, result, status.value) is not None


async def give_up_operation(c: Connection, task_id: TaskId, result: Json) -> Operation | None:
    """Notes what became of an operation that ended without an outcome; None when it has had one."""
    row = await c.fetchrow(_GIVE_UP, task_id, result)
    return None if row is None else parse_operation(row)


async def drop_unopened(c: Connection, session_id: SessionId, turn: TaskId) -> None:
    """Ends what a turn has registered and no service has accepted: the turn was stopped before."""
    await c.execute(_DROP_UNOPENED, session_id, turn)


async def note_progress(c: Connection, operation: Operation, progress: Progress) -> int | None:
    """Keeps the newest word about it; the attempt that stands, or None when it is not outside any more."""
    document = {"percent": progress.percent, "message": progress.message}
    attempt: int | None = await c.fetchval(_NOTE_PROGRESS, operation.task_id, document)
    return attempt


async def runners(c: Connection) -> set[ExecutorId]:
    """The executors that do the work of an operation themselves."""
    return {ExecutorId(row["runner"]) for row in await c.fetch(_RUNNERS)}


async def operations_run_by(c: Connection, runner: ExecutorId) -> list[Operation]:
    return [parse_operation(row) for row in await c.fetch(_RUN_BY, runner)]


async def overdue_operations(c: Connection, limit: int) -> list[Operation]:
    """Those whose time is over, the first one first."""
    return [parse_operation(row) for row in await c.fetch(_OVERDUE, limit)]

"""Operations: long work for a tool call, each a task that is pending until its outcome arrives.

An operation is inserted before its service is asked, so that no outcome can arrive too early. While it is pending, its
task is `running`, not active, and has no owner. Its outcome is set once, by one statement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from backend.chat.models import ANSWER_ID, Caller, Excerpt, Json, Task, TaskStatus
from backend.chat.outcomes import Operation, Outcome, Progress, ResultUse, ToolWork
from backend.chat.protocol.tool_outputs import MEMBERS
from backend.chat.questions import Question
from backend.chat.store.webhooks.deliveries import Event, event_insert
from backend.errors import Fenced, OperationNotFound, TooManyOperations
from backend.ids import ExecutorId, OperationId, SessionId, TaskId, UserId, new_operation_id, new_task_id
from backend.postgres import Connection, Row

CANCELLED: Json = {"type": "error", "message": "The work was cancelled.", "error": "cancelled"}
"""The result of an operation that was cancelled."""
COLUMNS = """t.id, t.number, t.session_id, t.user_id, t.status, t.attempt, t.cancel_requested_at, t.checkpoint,
  t.operation_id, t.tool_name, t.tool_call_id, t.request, t.outcome, t.result, t.progress, t.created_at,
  t.deadline_at"""

_SELECT = f"SELECT {COLUMNS} FROM tasks t WHERE t.kind = 'operation'"
# COLUMNS without the two members of a request that can be large, and with at most $1 characters of the result.
_SHOWN_COLUMNS = COLUMNS.replace("t.request,", "t.request - '{order,resume}'::text[] AS request,").replace(
    "t.result,",
    "CASE WHEN length(text) > $1 THEN members ELSE t.result END AS result, length(text) AS characters, "
    "CASE WHEN length(text) > $1 THEN left(text, $1) END AS beginning,",
)
_SHOWN = f"""
SELECT {_SHOWN_COLUMNS} FROM tasks t CROSS JOIN LATERAL (
  SELECT CASE jsonb_typeof(t.result) WHEN 'string' THEN t.result #>> '{{}}' ELSE t.result::text END AS text,
    CASE jsonb_typeof(t.result) WHEN 'object' THEN (
      SELECT coalesce(jsonb_object_agg(key, value), '{{}}') FROM jsonb_each(t.result)
      WHERE key = ANY('{{{",".join(MEMBERS)}}}') AND octet_length(value::text) <= $1) END AS members) AS cut
WHERE t.kind = 'operation'"""
PENDING = "kind = 'operation' AND status = 'running' AND owner IS NULL AND outcome IS NULL"
# Only pending operations have a deadline, so the index on deadlines finds them quickly.
_RUN = f"deadline_at IS NOT NULL AND {PENDING} AND request->>'runner' IS NOT NULL"


class Continuation(StrEnum):
    """The state of an operation's continuation after its outcome arrived."""

    ACTIVE = "active"
    """It is the session's active task: the caller publishes its turn."""
    WAITING = "waiting"
    """It waits, because the session has another active task."""
    LATE = "late"
    """There is none: the operation was no longer pending, so nothing was stored."""


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
            use=ResultUse(request["use"]),
            order=request.get("order"),
            graph_id=request.get("graph_id"),
            base_version=request.get("base_version"),
            runner=request.get("runner"),
            asks=Question.from_json(request.get("asks")),
            resume=request.get("resume"),
            remote=request.get("remote"),
            notes=tuple(request.get("notes", ())),
        ),
        digest=None if outcome is None else outcome["digest"],
        result=row["result"],
        progress=None if progress is None else Progress(progress.get("percent"), progress.get("message")),
        created_at=row["created_at"],
        deadline_at=row["deadline_at"],
        approved=outcome is not None and outcome.get("approved") is True,
        begun=outcome is not None and outcome.get("begun") is True,
        given=None if outcome is None else outcome.get("given"),
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
        "base_version": work.base_version,
        "runner": work.runner,
        **({} if work.asks is None else {"asks": work.asks.as_json()}),
        **({} if work.resume is None else {"resume": work.resume}),
        **({} if work.remote is None else {"remote": work.remote}),
        **({"notes": list(work.notes)} if work.notes else {}),
    }


_INSERT = f"""
INSERT INTO tasks AS t (id, session_id, user_id, quota_key, kind, status, attempt, request, tool_name, operation_id,
  tool_call_id, deadline_at)
SELECT $2, s.id, asks.user_id, coalesce('user:' || asks.user_id, 'session:' || s.id), 'operation', 'running', 1,
  $3::jsonb || jsonb_build_object(
    'takes_questions', turn.request->'takes_questions', 'page_tools', turn.request->'page_tools',
    'claims', turn.request->'claims'),
  $4, $5, $6, now() + make_interval(secs => $7)
FROM sessions s LEFT JOIN tasks turn ON turn.id = $3::jsonb->>'turn'
  CROSS JOIN LATERAL (SELECT coalesce(s.user_id, turn.user_id) AS user_id) AS asks  -- a user, in nobody's session
WHERE s.id = $1
ON CONFLICT (session_id, tool_call_id) DO NOTHING
RETURNING {COLUMNS}"""


_QUOTA = """
SELECT coalesce('user:' || coalesce(s.user_id, turn.user_id), 'session:' || s.id)
FROM sessions s LEFT JOIN tasks turn ON turn.id = $2 WHERE s.id = $1"""
_OPERATION_LOCKS = 7_273_003
"""The first number of the advisory locks of operations; the second is a hash of the quota key."""
_LOCK_QUOTA = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_COUNT_UNENDED = """
SELECT count(*) FROM tasks WHERE quota_key = $1 AND status IN ('queued', 'running') AND kind = 'operation'
  AND (request->'asks' IS NOT NULL) = $2"""


async def check_room(c: Connection, session_id: SessionId, work: ToolWork, most: int) -> None:
    """Raises TooManyOperations if `most` operations of the same user, or anonymous session, have not ended.

    Questions to the user are counted by themselves, and do not count for other operations. A call that has an operation
    already always passes. Requires a transaction. Until it ends, other checks for the same user wait.
    """
    quota = await c.fetchval(_QUOTA, session_id, work.turn)
    if quota is None:
        return  # the session is gone, as `register` will find
    await c.execute(_LOCK_QUOTA, _OPERATION_LOCKS, quota)
    asks = work.asks is not None
    if await c.fetchval(_COUNT_UNENDED, quota, asks) < most:
        return
    if await find_by_call(c, session_id, work.tool_call_id) is None:
        which = "questions to this user are open" if asks else "operations of this user have not ended"
        raise TooManyOperations(f"{most} {which}, which is the limit.")


async def register(c: Connection, session_id: SessionId, work: ToolWork, *, limit: float) -> Operation:
    """Returns the operation of a tool call: the one that the call already has, or a new one.

    A new one expires after `limit` seconds if it is not opened before. Raises OperationNotFound if the session is gone.
    """
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


_HAND_OVER = f"""
UPDATE tasks SET request = request || jsonb_build_object('remote', $2::text, 'runner', $3::text, 'notes', $4::jsonb)
WHERE id = $1 AND {PENDING} AND cancel_requested_at IS NULL AND request->'remote' IS NULL RETURNING 1"""


async def hand_over_to_server(c: Connection, operation: Operation, work: ToolWork) -> bool:
    """Records that a tool server goes on with a pending operation that its runner has carried out.

    `work` has the server, its notes, and the runner if the server's work ends with it. Returns False if that is
    recorded already, or the operation is no longer pending.
    """
    values = (operation.task_id, work.remote, work.runner, list(work.notes))
    return await c.fetchval(_HAND_OVER, *values) is not None


_BY_CALL = f"{_SELECT} AND session_id = $1 AND tool_call_id = $2"


async def find_by_call(c: Connection, session_id: SessionId, tool_call_id: str) -> Operation | None:
    row = await c.fetchrow(_BY_CALL, session_id, tool_call_id)
    return None if row is None else parse_operation(row)


_BY_ID = f"{_SELECT} AND operation_id = $1"
_BY_ID_LOCKED = f"{_BY_ID} FOR NO KEY UPDATE"


async def get_operation(c: Connection, operation_id: OperationId, *, lock: bool = False) -> Operation:
    """Returns any user's operation. Raises OperationNotFound.

    With `lock`, its row stays locked until this transaction ends; the caller holds its session's lock.
    """
    row = await c.fetchrow(_BY_ID_LOCKED if lock else _BY_ID, operation_id)
    if row is None:
        raise OperationNotFound
    return parse_operation(row)


_OF_CALLER = f"""
SELECT {COLUMNS} FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.kind = 'operation' AND (t.operation_id = $1 OR t.id = $1) AND (s.user_id IS NULL OR s.user_id = $2)"""


async def get_operation_of(c: Connection, id: str, caller: Caller) -> Operation:
    """Returns the operation with this operation id or task id.

    Raises OperationNotFound if it does not exist, or if the caller may not access its session.
    """
    row = await c.fetchrow(_OF_CALLER, id, caller.user_id)
    if row is None:
        raise OperationNotFound
    return parse_operation(row)


_BY_TASKS = f"{_SELECT} AND id = ANY($1::text[])"


async def operations_of_tasks(c: Connection, task_ids: Sequence[TaskId]) -> dict[TaskId, Operation]:
    """Returns the operations among these tasks, by task id."""
    found = [parse_operation(row) for row in await c.fetch(_BY_TASKS, task_ids)]
    return {operation.task_id: operation for operation in found}


_SHOWN_BY_TASKS = f"{_SHOWN} AND id = ANY($2::text[])"


async def shown_operations(c: Connection, task_ids: Sequence[TaskId], *, most: int) -> dict[TaskId, Operation]:
    """Returns the operations among these tasks, by task id, as people see them.

    Their orders are left out, and results with more than `most` characters are excerpts.
    """
    found = [_parse_shown(row) for row in await c.fetch(_SHOWN_BY_TASKS, most, task_ids)]
    return {operation.task_id: operation for operation in found}


_UNENDED = f"{_SHOWN} AND session_id = $2 AND status IN ('queued', 'running') ORDER BY number"


async def unended_operations(c: Connection, session_id: SessionId) -> list[Operation]:
    """Returns the session's operations that are pending, or whose continuation has not ended, ordered by number.

    They have neither their orders nor their results.
    """
    return [_parse_shown(row) for row in await c.fetch(_UNENDED, 0, session_id)]


def _parse_shown(row: Row) -> Operation:
    operation = parse_operation(row)
    if row["beginning"] is None:
        return operation
    return replace(operation, excerpt=Excerpt(row["beginning"], row["characters"], row["result"]))


_RESULTS = """
SELECT tool_call_id, result FROM tasks
WHERE session_id = $1 AND tool_call_id = ANY($2::text[]) AND result IS NOT NULL"""


async def results_of(c: Connection, session_id: SessionId, tool_call_ids: Sequence[str]) -> Mapping[str, Json]:
    """Returns the known results of operations that these tool calls began, by tool call id."""
    return {row["tool_call_id"]: row["result"] for row in await c.fetch(_RESULTS, session_id, tool_call_ids)}


_OPEN = f"""
UPDATE tasks SET checkpoint = $2, deadline_at = now() + make_interval(secs => $3), heard_at = now()
WHERE id = $1 AND attempt = 1 AND {PENDING} RETURNING 1"""


async def open_operation(c: Connection, operation: Operation, checkpoint: str, *, limit: float) -> bool:
    """Records that the service has accepted the operation, and that its stream has been written up to `checkpoint`.

    The operation expires `limit` seconds from now. Returns False if it is no longer pending.
    """
    return await c.fetchval(_OPEN, operation.task_id, checkpoint, limit) is not None


# `place` puts the continuation behind the turns that were accepted before its outcome arrived.
_CONTINUE = f"""
WITH t AS (
  UPDATE tasks AS t SET status = 'queued', published_at = NULL, active_since = now(), deadline_at = NULL, result = $3,
    outcome = $2::jsonb || jsonb_build_object('place', nextval('tasks_number_seq')),
    request = request || jsonb_build_object('text', $4::text, 'parent', $5::text),
    active_session_id = CASE WHEN NOT EXISTS (SELECT 1 FROM tasks o WHERE o.active_session_id = t.session_id)
      THEN session_id END
  WHERE id = $1 AND {PENDING} AND cancel_requested_at IS NULL
  RETURNING id, session_id, active_session_id
), told AS ({event_insert(f"'{Event.OPERATION_FINISHED}'", "$6", ends=False)}
)
SELECT active_session_id IS NOT NULL FROM t"""


async def continue_operation(
    c: Connection, operation: Operation, outcome: Outcome, result: Json | None, note: str
) -> Continuation:
    """Stores a pending operation's outcome and queues its continuation, which gives the model `note`.

    The continuation belongs to the branch of the answer that began the operation. `result` is None for an approved
    call, which runs in the continuation. The caller holds the session's lock.
    """
    stored: dict[str, Json] = {"success": outcome.success, "digest": outcome.digest}
    if operation.approved_by(outcome):
        stored |= {"approved": True, "always": outcome.result.get("always") is True}
        if operation.work.resume is not None:
            stored["given"] = outcome.result
    caller = f"{ANSWER_ID}{operation.work.turn}"
    status = TaskStatus.COMPLETED if outcome.success else TaskStatus.FAILED
    active: bool | None = await c.fetchval(_CONTINUE, operation.task_id, stored, result, note, caller, status.value)
    if active is None:
        return Continuation.LATE
    return Continuation.ACTIVE if active else Continuation.WAITING


_SETTLE = f"""
UPDATE tasks SET outcome = $2, result = $3, deadline_at = NULL, status = $4, finished_at = now()
WHERE id = $1 AND {PENDING} AND cancel_requested_at IS NULL RETURNING 1"""


async def finish_operation(c: Connection, operation: Operation, outcome: Outcome, result: Json) -> bool:
    """Stores a pending operation's outcome and ends it without a continuation.

    Returns False if it is no longer pending.
    """
    status = TaskStatus.COMPLETED if outcome.success else TaskStatus.FAILED
    stored = {"success": outcome.success, "digest": outcome.digest}
    return await c.fetchval(_SETTLE, operation.task_id, stored, result, status.value) is not None


_GIVE_UP = f"UPDATE tasks AS t SET result = $2 WHERE id = $1 AND result IS NULL RETURNING {COLUMNS}"


async def give_up_operation(c: Connection, task_id: TaskId, result: Json) -> Operation | None:
    """Stores a result for an operation that ended without an outcome. Returns None if it already has a result."""
    row = await c.fetchrow(_GIVE_UP, task_id, result)
    return None if row is None else parse_operation(row)


_DROP_UNOPENED = f"""
UPDATE tasks SET status = 'cancelled', deadline_at = NULL, finished_at = now()
WHERE session_id = $1 AND request->>'turn' = $2 AND checkpoint IS NULL AND {PENDING}"""


async def drop_unopened(c: Connection, session_id: SessionId, turn: TaskId) -> None:
    """Cancels the operations that a stopped turn has registered and no service has accepted."""
    await c.execute(_DROP_UNOPENED, session_id, turn)


# --- approved calls -------------------------------------------------------------------------------------------------

_BEGIN_RUN = """
UPDATE tasks SET outcome = outcome || '{"begun": true}'
WHERE id = $1 AND attempt = $2 AND owner = $3 AND status = 'running' RETURNING 1"""


async def begin_run(c: Connection, task: Task) -> None:
    """Records that the approved call of this claimed task is about to run. Raises Fenced if the claim is lost."""
    if await c.fetchval(_BEGIN_RUN, task.id, task.attempt, task.owner) is None:
        raise Fenced


_STORE_RESULT = f"""
UPDATE tasks AS t SET result = $4
WHERE id = $1 AND attempt = $2 AND owner = $3 AND status = 'running' RETURNING {COLUMNS}"""


async def store_result(c: Connection, task: Task, result: Json) -> Operation:
    """Stores the result of an approved call that has run. Raises Fenced if the claim `task` is lost."""
    row = await c.fetchrow(_STORE_RESULT, task.id, task.attempt, task.owner, result)
    if row is None:
        raise Fenced
    return parse_operation(row)


# --- while it is pending ----------------------------------------------------------------------------------------------

_NOTE_PROGRESS = f"""
UPDATE tasks SET progress = $2, heard_at = now() WHERE id = $1 AND {PENDING} RETURNING attempt"""


async def note_progress(c: Connection, operation: Operation, progress: Progress) -> int | None:
    """Stores the newest progress of an operation. Returns its current attempt, or None if it is no longer pending."""
    document = {"percent": progress.percent, "message": progress.message}
    attempt: int | None = await c.fetchval(_NOTE_PROGRESS, operation.task_id, document)
    return attempt


_RUNNERS = f"SELECT DISTINCT request->>'runner' AS runner FROM tasks WHERE {_RUN}"


async def runners(c: Connection) -> set[ExecutorId]:
    """Returns the executors that carry out a pending operation themselves."""
    return {ExecutorId(row["runner"]) for row in await c.fetch(_RUNNERS)}


_RUN_BY = f"SELECT {COLUMNS} FROM tasks t WHERE {_RUN} AND request->>'runner' = $1"


async def operations_run_by(c: Connection, runner: ExecutorId) -> list[Operation]:
    """Returns the pending operations that this executor carries out itself."""
    return [parse_operation(row) for row in await c.fetch(_RUN_BY, runner)]


_TAKE_SILENT = f"""
UPDATE tasks AS t SET heard_at = now() WHERE id IN (
  SELECT id FROM tasks
  WHERE deadline_at > now() AND {PENDING} AND cancel_requested_at IS NULL AND checkpoint IS NOT NULL
    AND coalesce(heard_at, created_at) < now() - make_interval(secs => $1)
    AND NOT id = ANY($3::text[]) AND jsonb_typeof(request->'order') = 'object' AND request->'remote' IS NULL
  ORDER BY coalesce(heard_at, created_at) LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING {COLUMNS}"""


async def take_silent_operations(
    c: Connection, *, silent_for: float, limit: int, besides: Collection[TaskId]
) -> list[Operation]:
    """Returns up to `limit` accepted operations whose service gave no sign for `silent_for` seconds.

    They count as heard of now, so that they are returned again after another `silent_for` seconds at the earliest.
    Leaves out the tasks `besides`, operations without a stored order, and those with a remote task.
    """
    return [parse_operation(row) for row in await c.fetch(_TAKE_SILENT, silent_for, limit, list(besides))]


_OVERDUE = f"""
SELECT {COLUMNS} FROM tasks t
WHERE deadline_at < now() AND {PENDING} ORDER BY deadline_at LIMIT $1"""


async def overdue_operations(c: Connection, limit: int) -> list[Operation]:
    """Returns up to `limit` pending operations whose deadline has passed, the earliest deadline first."""
    return [parse_operation(row) for row in await c.fetch(_OVERDUE, limit)]

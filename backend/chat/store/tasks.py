"""Tasks: what runs, which executor runs it, and how it ended. Every change is one statement that checks its conditions.

A session has at most one active task: `active_session_id` is unique. Each claim raises the attempt. Every later write
of an attempt checks that the attempt is still the current one, and raises Fenced if it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backend.chat.models import AnswerEnd, Caller, Task, TaskError, TaskStatus, Turn, TurnRequest, Usage
from backend.chat.store.task_rows import (
    AGE,
    BRIEF_COLUMNS,
    COLUMNS,
    STEERED,
    STEERS,
    SUMS,
    USED,
    answer_end_json,
    parse_task,
    parse_usage,
    request_json,
    with_usage,
)
from backend.chat.store.webhooks.deliveries import Event, event_insert
from backend.errors import Fenced, TaskNotFound
from backend.ids import ExecutorId, SessionId, StreamId, TaskId
from backend.postgres import Connection, Row

_MOST_TOKENS = 2**31 - 1
"""The largest count that an integer column can hold."""
_QUOTA_LOCKS = 7_273_002
"""The class of the advisory locks that count_turns takes, one for each quota key."""

# Fragments that several statements share.
_WAITING = "session_id = $1 AND status = 'queued' AND active_session_id IS NULL"
# A continuation waits at the place that it got when its outcome arrived (`operations._CONTINUE`).
_PLACE = "coalesce((outcome->>'place')::bigint, number)"
_UNENDED = f"SELECT {BRIEF_COLUMNS} FROM tasks t WHERE status IN ('queued', 'running')"
_REACHABLE = f"""
SELECT {COLUMNS} FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.id = $1 AND (s.user_id IS NULL OR s.user_id = $2)"""
_ADD_USAGE = """
INSERT INTO usage (task_id, step, input_tokens, output_tokens, reasoning_tokens, cached_tokens, model, cost,
  currency)"""
# published_at becomes NULL if the caller still has to publish the turn. If the caller dies before that, the sweeper
# publishes the turn without further delay.
_RELEASE = """
UPDATE tasks SET owner = NULL, crashes = crashes + CASE WHEN $2 THEN 1 ELSE 0 END,
  published_at = CASE WHEN $3 THEN now() END
WHERE owner = $1 AND status = 'running'"""
# A pending operation has no owner. If the process that requested the cancellation dies before it ends the operation,
# the sweeper finds the operation overdue after 10 s.
_SET_CANCEL = """cancel_requested_at = coalesce(cancel_requested_at, now()),
  deadline_at = CASE WHEN deadline_at IS NOT NULL THEN least(deadline_at, now() + interval '10 seconds') END"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A turn that an executor has claimed and that has not ended."""

    turn: Turn
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Tasks that failed or were `stopped`, each with its status, and those whose exchange a provider `refused`."""

    stopped: Mapping[TaskId, TaskStatus] = field(default_factory=dict)
    refused: Collection[TaskId] = ()


@dataclass(frozen=True, slots=True)
class FinishedTask:
    """A task that has just ended. `others_wait`: further tasks of its session are queued."""

    task: Task
    others_wait: bool


def _found(row: Row | None) -> Task | None:
    return None if row is None else parse_task(row)


def _used(usage: Usage) -> tuple[int | float | str | None, ...]:
    """Returns the last seven columns of a row: counts, model and cost.

    A count that a provider reports too large is cut to the column's range. One model answers a step, so its cost has
    one currency at most.
    """
    counts = usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.cached_tokens
    currency, cost = next(iter(usage.cost.items()), (None, None))
    return *(min(max(count, 0), _MOST_TOKENS) for count in counts), usage.model, cost, currency


# --- looking up ---------------------------------------------------------------------------------------------------

_BY_ID = with_usage(f"SELECT {COLUMNS} FROM tasks t WHERE id = $1")
_BY_ID_LOCKED = with_usage(f"SELECT {COLUMNS} FROM tasks t WHERE id = $1 FOR NO KEY UPDATE")
_BY_CALLER = with_usage(_REACHABLE)
_BY_CALLER_LOCKED = with_usage(f"{_REACHABLE} FOR NO KEY UPDATE OF t")


async def get_task(c: Connection, task_id: TaskId, caller: Caller | None = None, *, lock: bool = False) -> Task:
    """Returns a task. Raises TaskNotFound if it does not exist, or if `caller` may not access its session.

    With `lock`, its row stays locked until this transaction ends.
    """
    if caller is None:
        row = await c.fetchrow(_BY_ID_LOCKED if lock else _BY_ID, task_id)
    else:
        row = await c.fetchrow(_BY_CALLER_LOCKED if lock else _BY_CALLER, task_id, caller.user_id)
    if row is None:
        raise TaskNotFound
    return parse_task(row)


_BY_KEY = with_usage(f"SELECT {COLUMNS} FROM tasks t WHERE session_id = $1 AND message_key = $2")


async def find_task_by_key(c: Connection, session_id: SessionId, message_key: str) -> Task | None:
    return _found(await c.fetchrow(_BY_KEY, session_id, message_key))


_BY_NUMBER = with_usage(f"SELECT {COLUMNS} FROM tasks t WHERE number = $2 AND session_id = $1")


async def find_task_by_number(c: Connection, session_id: SessionId, number: int) -> Task | None:
    """Returns the session's task to which a cursor belongs (`StreamId.task_number`)."""
    return _found(await c.fetchrow(_BY_NUMBER, session_id, number))


_ACTIVE = with_usage(f"SELECT {COLUMNS} FROM tasks t WHERE active_session_id = $1")


async def find_active_task(c: Connection, session_id: SessionId) -> Task | None:
    return _found(await c.fetchrow(_ACTIVE, session_id))


_HAS_JUST_ENDED = """
SELECT EXISTS (SELECT FROM tasks WHERE session_id = $1 AND finished_at > now() - make_interval(secs => $2))"""


async def has_just_ended(c: Connection, session_id: SessionId, *, within: float) -> bool:
    """Returns True if a task of the session ended in the last `within` seconds."""
    return bool(await c.fetchval(_HAS_JUST_ENDED, session_id, within))


_WITH_ACTIVE = "SELECT active_session_id FROM tasks WHERE active_session_id = ANY($1::text[])"


async def sessions_with_active_task(c: Connection, session_ids: Sequence[SessionId]) -> set[SessionId]:
    """Returns those of the sessions in which a task is active."""
    return {SessionId(row["active_session_id"]) for row in await c.fetch(_WITH_ACTIVE, session_ids)}


_BY_IDS = with_usage(f"SELECT {COLUMNS} FROM tasks t WHERE id = ANY($1::text[])")


_BY_IDS_IN_BRIEF = with_usage(f"SELECT {BRIEF_COLUMNS} FROM tasks t WHERE id = ANY($1::text[])")


async def find_tasks(c: Connection, task_ids: Sequence[TaskId], *, brief: bool = False) -> list[Task]:
    """Returns the tasks that exist, ordered by number. With `brief`, their requests have only the text and its ids."""
    return [parse_task(row) for row in await c.fetch(_BY_IDS_IN_BRIEF if brief else _BY_IDS, task_ids)]


_QUEUED = with_usage(
    f"SELECT {COLUMNS}, t.priority, {_PLACE} AS place FROM tasks t WHERE {_WAITING}", "t.priority DESC, t.place"
)


async def queued_tasks(c: Connection, session_id: SessionId) -> list[Task]:
    """Returns the session's waiting turns, in the order in which they will run."""
    return [parse_task(row) for row in await c.fetch(_QUEUED, session_id)]


_UNENDED_OF_SESSION = with_usage(f"{_UNENDED} AND session_id = $1 ORDER BY number LIMIT 500")
_UNENDED_OF_CALLER = with_usage(f"{_UNENDED} AND quota_key = $1 ORDER BY number LIMIT 500")


async def unended_tasks(c: Connection, of: SessionId | Caller) -> list[Task]:
    """Returns the tasks of a session or of a caller that have not ended: the first 500, ordered by number.

    Their requests have only the text and its ids.
    """
    whose = (_UNENDED_OF_CALLER, of.quota_key) if isinstance(of, Caller) else (_UNENDED_OF_SESSION, of)
    return [parse_task(row) for row in await c.fetch(*whose)]


_HIGHEST = f"SELECT coalesce(max(priority), 0) FROM tasks WHERE {_WAITING}"


async def highest_priority(c: Connection, session_id: SessionId) -> int:
    """Returns the highest priority of the session's waiting turns, or 0 if none waits."""
    highest: int = await c.fetchval(_HIGHEST, session_id)
    return highest


_SESSION_USAGE = f"""
SELECT currency, sum(cost) AS cost, {SUMS} FROM usage JOIN tasks t ON t.id = task_id WHERE t.session_id = $1
GROUP BY currency ORDER BY currency"""


async def session_usage(c: Connection, session_id: SessionId) -> Usage:
    """Returns the tokens and the cost of all of the session's committed steps, without a model."""
    used = Usage()
    for row in await c.fetch(_SESSION_USAGE, session_id):
        tokens = (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"], row["cached_tokens"])
        used += Usage(*tokens, cost={} if row["currency"] is None else {row["currency"]: row["cost"]})
    return used


_STEP_USAGE = """
SELECT task_id, step, input_tokens, output_tokens, reasoning_tokens, cached_tokens, model,
  CASE WHEN cost IS NOT NULL THEN jsonb_build_array(jsonb_build_array(currency, cost)) END AS costs
FROM usage WHERE task_id = ANY($1::text[])"""


async def usage_of_steps(c: Connection, task_ids: Sequence[TaskId]) -> dict[tuple[TaskId, int], Usage]:
    """Returns the tokens, the model and the cost of each step of these tasks that has them."""
    rows = await c.fetch(_STEP_USAGE, task_ids)
    return {(TaskId(row["task_id"]), row["step"]): parse_usage(row) for row in rows}


_OWNERS = "SELECT DISTINCT owner FROM tasks WHERE owner IS NOT NULL AND status = 'running'"


async def owners(c: Connection) -> set[ExecutorId]:
    """Returns every executor that has claimed a task which has not ended."""
    return {ExecutorId(row["owner"]) for row in await c.fetch(_OWNERS)}


_CLAIMS = "SELECT id, session_id, cancel_requested_at IS NOT NULL AS cancelled FROM tasks WHERE owner = $1"


async def claims_of(c: Connection, owner: ExecutorId) -> list[Claim]:
    """Returns the executor's claims on tasks that have not ended."""
    rows = await c.fetch(_CLAIMS, owner)
    return [Claim(Turn(TaskId(row["id"]), SessionId(row["session_id"])), row["cancelled"]) for row in rows]


_ACTIVE_SINCE = "coalesce(active_since, created_at)"  # active_since is NULL in rows older than the column
_UNPUBLISHED = f"""
SELECT id, session_id FROM tasks
WHERE active_session_id IS NOT NULL AND owner IS NULL
  AND coalesce(
    published_at
      + least(10 * make_interval(secs => $2), greatest(make_interval(secs => $2), published_at - {_ACTIVE_SINCE})),
    {_ACTIVE_SINCE} + make_interval(secs => $1)) < now()
ORDER BY number LIMIT $3"""


async def unpublished_tasks(c: Connection, *, older_than: float, limit: int, again_after: float = 60.0) -> list[Turn]:
    """Returns up to `limit` active turns without an owner that may be missing from the queue, oldest first.

    A turn is returned if it became active `older_than` s ago and was never published, or if it was published
    `again_after` s ago: the broker may have lost it. A turn that merely waits for a free executor is returned less and
    less often, in the end every ten times `again_after`. Publishing it twice is harmless.
    """
    rows = await c.fetch(_UNPUBLISHED, older_than, again_after, limit)
    return [Turn(TaskId(row["id"]), SessionId(row["session_id"])) for row in rows]


# --- beginning ----------------------------------------------------------------------------------------------------

_LOCK_QUOTA = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_COUNT = """
SELECT count(*) FILTER (WHERE active_session_id IS NOT NULL), count(*) FILTER (WHERE active_session_id IS NULL)
FROM tasks WHERE quota_key = $1 AND status IN ('queued', 'running') AND kind = 'turn'"""


async def count_turns(c: Connection, quota_key: str) -> tuple[int, int]:
    """Returns how many turns of this quota key are active, and how many wait.

    Requires a transaction. Until it ends, other counts of the same key wait. The lock and the count are two statements,
    so that the count sees what the previous holder of the lock committed.
    """
    await c.execute(_LOCK_QUOTA, _QUOTA_LOCKS, quota_key)
    row = await c.fetchrow(_COUNT, quota_key)
    assert row is not None
    return row[0], row[1]


_INSERT = with_usage(f"""
INSERT INTO tasks AS t (id, session_id, user_id, quota_key, request, message_key, active_session_id, active_since,
  priority)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN $2 END, CASE WHEN $7 THEN now() END, $8) RETURNING {COLUMNS}""")


async def insert_task(
    c: Connection,
    *,
    task_id: TaskId,
    session_id: SessionId,
    caller: Caller,
    request: TurnRequest,
    message_key: str | None,
    active: bool,
    priority: int = 0,
) -> Task:
    """Inserts a queued turn, which is the session's active task if `active`.

    The caller holds the session's lock. It has checked that `message_key` is new and, for an active turn, that the
    session has no active task. Raises asyncpg.UniqueViolationError if one of the two is not so.
    """
    user, quota = caller.user_id, caller.quota_key
    row = await c.fetchrow(
        _INSERT, task_id, session_id, user, quota, request_json(request), message_key, active, priority
    )
    assert row is not None
    return parse_task(row)


_INSERT_ENDED = """
INSERT INTO tasks (id, session_id, user_id, quota_key, request, status, finished_at)
VALUES ($1, $2, $3, $4, $5, 'completed', now())"""


async def insert_ended_task(c: Connection, task_id: TaskId, session_id: SessionId, caller: Caller) -> TaskId:
    """Inserts a turn that is completed: the owner of messages that come from elsewhere. Returns its id."""
    request = request_json(TurnRequest(None))
    await c.execute(_INSERT_ENDED, task_id, session_id, caller.user_id, caller.quota_key, request)
    return task_id


_CHANGE_REQUEST = with_usage(f"""
UPDATE tasks AS t SET request = $2 WHERE id = $1 AND status = 'queued' AND active_session_id IS NULL
RETURNING {COLUMNS}""")


async def change_request(c: Connection, task_id: TaskId, request: TurnRequest) -> Task | None:
    """Replaces the request of a waiting turn. Returns None if the turn does not wait.

    The caller holds the session's lock.
    """
    return _found(await c.fetchrow(_CHANGE_REQUEST, task_id, request_json(request)))


_ACTIVATE_NEXT = with_usage(f"""
UPDATE tasks AS t SET active_session_id = session_id, active_since = now()
WHERE id = (SELECT id FROM tasks WHERE {_WAITING} ORDER BY priority DESC, {_PLACE} LIMIT 1)
  AND NOT EXISTS (SELECT 1 FROM tasks WHERE active_session_id = $1)
RETURNING {COLUMNS}""")


async def activate_next(c: Connection, session_id: SessionId) -> Task | None:
    """Makes the session's first waiting turn the active one. Returns None if none waits or one is already active.

    The caller holds the session's lock.
    """
    return _found(await c.fetchrow(_ACTIVATE_NEXT, session_id))


_MARK_PUBLISHED = "UPDATE tasks SET published_at = now() WHERE id = ANY($1::text[]) AND owner IS NULL"


async def mark_published(c: Connection, task_ids: Sequence[TaskId]) -> None:
    """Records that the queue has confirmed these turns, except those that an executor has claimed since."""
    await c.execute(_MARK_PUBLISHED, task_ids)


_MARK_UNPUBLISHED = """
UPDATE tasks SET published_at = NULL WHERE id = ANY($1::text[]) AND owner IS NULL AND published_at IS NOT NULL"""


async def mark_unpublished(c: Connection, task_ids: Sequence[TaskId]) -> None:
    """Records that the queue may have no message for these turns, except those that an executor has claimed since."""
    await c.execute(_MARK_UNPUBLISHED, task_ids)


# --- running ------------------------------------------------------------------------------------------------------

_CLAIM_NEW = with_usage(
    f"""
UPDATE tasks AS t SET attempt = 1, owner = $2, status = 'running', started_at = now()
WHERE id = $1 AND status = 'queued' AND owner IS NULL AND attempt = 0 AND active_session_id IS NOT NULL
RETURNING {COLUMNS}""",
    more=STEERED,
)


async def claim_new_task(c: Connection, task_id: TaskId, executor_id: ExecutorId) -> Task | None:
    """Claims the first attempt at an active task: the usual case, in one statement.

    Returns None if the task has been claimed before, is not active or does not exist.
    """
    return _found(await c.fetchrow(_CLAIM_NEW, task_id, executor_id))


_CLAIM = with_usage(
    f"""
UPDATE tasks AS t SET attempt = attempt + 1, owner = $2, status = 'running', started_at = coalesce(started_at, now()),
  crashes = crashes + CASE WHEN $3::text <> $2 THEN 1 ELSE 0 END
WHERE id = $1 AND status IN ('queued', 'running') AND owner IS NOT DISTINCT FROM $3 AND attempt = $4
  AND (active_session_id IS NOT NULL OR cancel_requested_at IS NOT NULL OR NOT $5)
RETURNING {COLUMNS}""",
    more=STEERED,
)


async def claim_task(
    c: Connection,
    task_id: TaskId,
    executor_id: ExecutorId,
    *,
    seen_owner: ExecutorId | None,
    seen_attempt: int,
    only_active: bool = True,
) -> Task | None:
    """Claims the next attempt for this executor. Taking a task from another owner counts as a crash of that owner.

    Returns None if the task has ended, or no longer has the owner and attempt that the caller saw. A task that is not
    active can be claimed only to end it: if its cancellation was requested, or if `only_active` is false.
    """
    return _found(await c.fetchrow(_CLAIM, task_id, executor_id, seen_owner, seen_attempt, only_active))


_RELEASE_ONE = f"{_RELEASE} AND id = $4 RETURNING 1"


async def release_claim(
    c: Connection, task_id: TaskId, owner: ExecutorId, *, crashed: bool = False, in_hand: bool = True
) -> bool:
    """Gives up the owner's claim on a task. Returns False if the owner no longer has it.

    `crashed`: the task's owner died while it ran the task. `in_hand`: the caller holds the turn's delivery from the
    queue and settles it. Otherwise the caller publishes the turn afterwards.
    """
    return await c.fetchval(_RELEASE_ONE, owner, crashed, in_hand, task_id) is not None


_RELEASE_ALL = f"{_RELEASE} RETURNING id, session_id"


async def release_claims(c: Connection, owner: ExecutorId, *, crashed: bool) -> list[Turn]:
    """Gives up all claims of an executor. Returns the turns, which the caller must publish."""
    rows = await c.fetch(_RELEASE_ALL, owner, crashed, False)
    return [Turn(TaskId(row["id"]), SessionId(row["session_id"])) for row in rows]


_COMMIT_STEP = f"""
WITH t AS (
    UPDATE tasks SET steps = $4, checkpoint = $5, crashes = 0
    WHERE id = $1 AND attempt = $2 AND owner = $3 AND status = 'running' AND steps < $4 RETURNING id, session_id
), used AS (
    {_ADD_USAGE} SELECT t.id, $4, $6, $7, $8, $9, $10, $11, $12 FROM t
    WHERE $6::int + $7::int + $8::int + $9::int > 0 OR $10::text IS NOT NULL
)
SELECT EXISTS ({STEERS}) FROM t"""


async def commit_step(c: Connection, task: Task, *, step: int, checkpoint: StreamId, usage: Usage) -> bool:
    """Records a step, its checkpoint and the tokens that this step alone used.

    Returns True if messages wait until this task takes them in. The caller holds the session's lock. Raises Fenced if
    the claim `task` is no longer the current one, or the step is recorded already.
    """
    key = (task.id, task.attempt, task.owner)
    steered: bool | None = await c.fetchval(_COMMIT_STEP, *key, step, str(checkpoint), *_used(usage))
    if steered is None:
        raise Fenced
    return steered


_TAKE = with_usage(f"""
UPDATE tasks AS t SET status = 'completed', finished_at = now()
WHERE session_id = $1 AND status = 'queued' AND active_session_id IS NULL AND attempt = 0
  AND cancel_requested_at IS NULL AND request->>'steers' = $2
RETURNING {COLUMNS}""")


async def take_steers(c: Connection, task: Task) -> list[Task]:
    """Ends the messages that wait until this task takes them in, and returns them in the order of their acceptance.

    The caller holds the session's lock, and stores the messages in the same transaction.
    """
    return [parse_task(row) for row in await c.fetch(_TAKE, task.session_id, task.id)]


_COUNT_STEERS = f"SELECT (SELECT count(*) FROM ({STEERS}) AS waiting) FROM tasks t WHERE t.id = $1"


async def count_steers(c: Connection, task_id: TaskId) -> int:
    """Returns how many messages wait until this task takes them in."""
    waiting: int = await c.fetchval(_COUNT_STEERS, task_id)
    return waiting


_USE_LATER = f"""
{_ADD_USAGE} SELECT t.id, (SELECT least(min(step), 0) - 1 FROM usage WHERE task_id = t.id), $2, $3, $4, $5, $6, $7, $8
FROM tasks t WHERE t.id = $1"""


async def add_later_usage(c: Connection, task_id: TaskId, usage: Usage) -> None:
    """Records tokens that were used after the end of a task: they count for its session, and not for the task."""
    await c.execute(_USE_LATER, task_id, *_used(usage))


_REQUEST_CANCEL = with_usage(f"""
UPDATE tasks AS t SET {_SET_CANCEL}
WHERE id = $1 AND status IN ('queued', 'running') RETURNING {COLUMNS}""")


async def request_cancel(c: Connection, task_id: TaskId) -> Task | None:
    """Requests a task's cancellation: however its work ends, it will end as `cancelled`.

    Returns None if the task has ended or does not exist.
    """
    return _found(await c.fetchrow(_REQUEST_CANCEL, task_id))


_REQUEST_CANCEL_OF_SESSIONS = with_usage(f"""
UPDATE tasks AS t SET {_SET_CANCEL}
WHERE session_id = ANY($1::text[]) AND status IN ('queued', 'running') RETURNING {COLUMNS}""")


async def request_cancel_of_sessions(c: Connection, session_ids: Sequence[SessionId]) -> list[Task]:
    """Requests the cancellation of all tasks of the sessions that have not ended, and returns these.

    The caller holds the sessions' locks.
    """
    return [parse_task(row) for row in await c.fetch(_REQUEST_CANCEL_OF_SESSIONS, session_ids)]


# An operation has its event when its outcome comes; here only if it ends without one (`Task.is_turn`).
_EVENT = f"""CASE WHEN t.kind = 'turn' OR t.request->>'text' IS NOT NULL THEN '{Event.TURN_FINISHED}'
  ELSE '{Event.OPERATION_FINISHED}' END"""
_FINISH = f"""
WITH t AS (
    UPDATE tasks AS t SET
      status = CASE WHEN cancel_requested_at IS NULL THEN $4 ELSE 'cancelled' END,
      error = CASE WHEN cancel_requested_at IS NULL THEN $5::jsonb END,
      active_session_id = NULL, owner = NULL, deadline_at = NULL, finished_at = now(),
      checkpoint = coalesce($13, checkpoint),
      answer_end = CASE WHEN cancel_requested_at IS NULL THEN $14::jsonb END
    WHERE id = $1 AND attempt = $2 AND owner = $3 AND status = 'running' RETURNING {COLUMNS}
), added AS (
    {_ADD_USAGE} SELECT t.id, t.steps + 1, $6, $7, $8, $9, $10, $11, $12 FROM t
    WHERE $6::int + $7::int + $8::int + $9::int > 0 OR $10::text IS NOT NULL
), told AS ({event_insert(_EVENT, "t.status", ends=True)}
)
SELECT {COLUMNS}, {AGE}, used.*,
  EXISTS (SELECT 1 FROM tasks o WHERE o.session_id = t.session_id AND o.status = 'queued') AS others_wait
FROM t CROSS JOIN LATERAL {USED} AS used"""


async def finish_task(
    c: Connection,
    task: Task,
    *,
    status: TaskStatus,
    error: TaskError | None,
    usage: Usage,
    checkpoint: StreamId | None = None,
    answer_end: AnswerEnd | None = None,
) -> FinishedTask:
    """Ends a running task: as `cancelled` if that was requested, otherwise as `status`. Its session is free afterwards.

    The caller holds the session's lock. `usage` are the tokens that no commit_step has recorded; `checkpoint` is the
    stream entry with which the task's last message ends. Raises Fenced if the claim `task` is no longer the current
    one, or the task has ended.
    """
    reason = None if error is None else {"code": error.code, "message": error.message}
    key, place = (task.id, task.attempt, task.owner), None if checkpoint is None else str(checkpoint)
    told = None if answer_end is None else answer_end_json(answer_end)
    row = await c.fetchrow(_FINISH, *key, status.value, reason, *_used(usage), place, told)
    if row is None:
        raise Fenced
    ended = parse_task(row)
    return FinishedTask(replace(ended, usage=ended.usage + usage), row["others_wait"])


_UNANSWERED = """
SELECT id, status, coalesce(answer_end->'refused' = 'true' OR error->>'code' = 'content_filter', false) AS refused
FROM tasks WHERE session_id = $1 AND (status IN ('failed', 'cancelled') OR answer_end->'refused' = 'true')
ORDER BY number DESC LIMIT 1000"""


async def unanswered_tasks(c: Connection, session_id: SessionId) -> Unanswered:
    """Returns the session's newest 1,000 tasks whose question got no whole answer."""
    rows = await c.fetch(_UNANSWERED, session_id)
    stopped = {TaskId(row["id"]): TaskStatus(row["status"]) for row in rows if row["status"] != TaskStatus.COMPLETED}
    return Unanswered(stopped, frozenset(TaskId(row["id"]) for row in rows if row["refused"]))

"""Tasks: what runs, who runs it, and how it ended. Every change is one statement that checks what it relies on.

A session has one active task at most: `active_session_id` is unique. A claim raises the attempt, and everything that
an attempt writes later checks that it still stands: else Fenced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.chat.models import Caller, Task, TaskError, TaskStatus, Turn, TurnRequest, Usage
from backend.chat.task_rows import COLUMNS, SUMS, parse_task, parse_usage, reading, request_json
from backend.errors import Fenced, TaskNotFound
from backend.ids import ExecutorId, SessionId, StreamId, TaskId
from backend.postgres import Connection, Row

_MOST_TOKENS = 2**31 - 1
_QUOTA_LOCKS = 7_273_002

_INSERT = reading(f"""
INSERT INTO tasks AS t (id, session_id, user_id, quota_key, request, message_key, active_session_id, active_since,
  priority)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN $2 END, CASE WHEN $7 THEN now() END, $8) RETURNING {COLUMNS}""")

_BY_KEY = reading(f"SELECT {COLUMNS} FROM tasks t WHERE session_id = $1 AND message_key = $2")
_BY_NUMBER = reading(f"SELECT {COLUMNS} FROM tasks t WHERE number = $2 AND session_id = $1")
_BY_ID = reading(f"SELECT {COLUMNS} FROM tasks t WHERE id = $1")
_BY_ID_LOCKED = reading(f"SELECT {COLUMNS} FROM tasks t WHERE id = $1 FOR NO KEY UPDATE")
_REACHABLE = f"""
SELECT {COLUMNS} FROM tasks t JOIN sessions s ON s.id = t.session_id
WHERE t.id = $1 AND (s.user_id IS NULL OR s.user_id = $2)"""
_BY_CALLER = reading(_REACHABLE)
_BY_CALLER_LOCKED = reading(f"{_REACHABLE} FOR NO KEY UPDATE OF t")
_BY_IDS = reading(f"SELECT {COLUMNS} FROM tasks t WHERE id = ANY($1::text[])")
_ACTIVE = reading(f"SELECT {COLUMNS} FROM tasks t WHERE active_session_id = $1")
_WAITING = "session_id = $1 AND status = 'queued' AND active_session_id IS NULL"
_PLACE = "coalesce((outcome->>'place')::bigint, number)"
_QUEUED = reading(
    f"SELECT {COLUMNS}, t.priority, {_PLACE} AS place FROM tasks t WHERE {_WAITING}", "t.priority DESC, t.place"
)
_UNENDED = f"SELECT {COLUMNS} FROM tasks t WHERE status IN ('queued', 'running')"
_UNENDED_OF_SESSION = reading(f"{_UNENDED} AND session_id = $1 ORDER BY number LIMIT 500")
_UNENDED_OF_CALLER = reading(f"{_UNENDED} AND quota_key = $1 ORDER BY number LIMIT 500")
_HIGHEST = f"SELECT coalesce(max(priority), 0) FROM tasks WHERE {_WAITING}"
_OWNERS = "SELECT DISTINCT owner FROM tasks WHERE owner IS NOT NULL AND status = 'running'"
_CLAIMS = "SELECT id, session_id, cancel_requested_at IS NOT NULL AS cancelled FROM tasks WHERE owner = $1"

_LOCK_QUOTA = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
_COUNT = """
SELECT count(*) FILTER (WHERE active_session_id IS NOT NULL), count(*) FILTER (WHERE active_session_id IS NULL)
FROM tasks WHERE quota_key = $1 AND status IN ('queued', 'running') AND kind = 'turn'"""

_CLAIM_NEW = reading(f"""
UPDATE tasks AS t SET attempt = 1, owner = $2, status = 'running', started_at = now()
WHERE id = $1 AND status = 'queued' AND owner IS NULL AND attempt = 0 AND active_session_id IS NOT NULL
RETURNING {COLUMNS}""")

_CLAIM = reading(f"""
UPDATE tasks AS t SET attempt = attempt + 1, owner = $2, status = 'running', started_at = coalesce(started_at, now()),
  crashes = crashes + CASE WHEN $3::text <> $2 THEN 1 ELSE 0 END
WHERE id = $1 AND status IN ('queued', 'running') AND owner IS NOT DISTINCT FROM $3 AND attempt = $4
  AND (active_session_id IS NOT NULL OR cancel_requested_at IS NOT NULL OR NOT $5)
RETURNING {COLUMNS}""")

# What its releaser has yet to publish counts as never published: should it die before, the sweeper is there at once.
_RELEASE = """
UPDATE tasks SET owner = NULL, crashes = crashes + CASE WHEN $2 THEN 1 ELSE 0 END,
  published_at = CASE WHEN $3 THEN now() END
WHERE owner = $1 AND status = 'running'"""
_RELEASE_ONE = f"{_RELEASE} AND id = $4 RETURNING 1"
_RELEASE_ALL = f"{_RELEASE} RETURNING id, session_id"

_ADD_USAGE = """
INSERT INTO usage (task_id, step, input_tokens, output_tokens, reasoning_tokens, cached_tokens)"""

_COMMIT_STEP = f"""
WITH t AS (
    UPDATE tasks SET steps = $4, checkpoint = $5, crashes = 0
    WHERE id = $1 AND attempt = $2 AND owner = $3 AND status = 'running' RETURNING id
), used AS (
    {_ADD_USAGE} SELECT t.id, $4, $6, $7, $8, $9 FROM t WHERE $6::int + $7::int + $8::int + $9::int > 0
)
SELECT id FROM t"""

_FINISH = f"""
WITH t AS (
    UPDATE tasks AS t SET
      status = CASE WHEN cancel_requested_at IS NULL THEN $4 ELSE 'cancelled' END,
      error = CASE WHEN cancel_requested_at IS NULL THEN $5::jsonb END,
      active_session_id = NULL, owner = NULL, deadline_at = NULL, finished_at = now(),
      checkpoint = coalesce($10, checkpoint)
    WHERE id = $1 AND attempt = $2 AND owner = $3 AND status = 'running' RETURNING {COLUMNS}
), added AS (
    {_ADD_USAGE} SELECT t.id, t.steps + 1, $6, $7, $8, $9 FROM t WHERE $6::int + $7::int + $8::int + $9::int > 0
)
SELECT {COLUMNS}, used.*,
  EXISTS (SELECT 1 FROM tasks o WHERE o.session_id = t.session_id AND o.status = 'queued') AS others_wait
FROM t CROSS JOIN LATERAL (SELECT {SUMS} FROM usage WHERE task_id = t.id) AS used"""

_ACTIVATE_NEXT = reading(f"""
UPDATE tasks AS t SET active_session_id = session_id, active_since = now()
WHERE id = (SELECT id FROM tasks WHERE {_WAITING} ORDER BY priority DESC, {_PLACE} LIMIT 1)
  AND NOT EXISTS (SELECT 1 FROM tasks WHERE active_session_id = $1)
RETURNING {COLUMNS}""")

# An operation that is outside is nobody's: should whoever wishes its end die before it, the sweeper finds it overdue.
_WISH = """cancel_requested_at = coalesce(cancel_requested_at, now()),
  deadline_at = CASE WHEN deadline_at IS NOT NULL THEN least(deadline_at, now() + interval '10 seconds') END"""
_REQUEST_CANCEL = reading(f"""
UPDATE tasks AS t SET {_WISH}
WHERE id = $1 AND status IN ('queued', 'running') RETURNING {COLUMNS}""")

_REQUEST_CANCEL_OF_SESSION = reading(f"""
UPDATE tasks AS t SET {_WISH}
WHERE session_id = $1 AND status IN ('queued', 'running') RETURNING {COLUMNS}""")

_CHANGE_REQUEST = reading(f"""
UPDATE tasks AS t SET request = $2 WHERE id = $1 AND status = 'queued' AND active_session_id IS NULL
RETURNING {COLUMNS}""")

_SESSION_USAGE = f"SELECT {SUMS} FROM usage JOIN tasks t ON t.id = task_id WHERE t.session_id = $1"

_MARK_PUBLISHED = "UPDATE tasks SET published_at = now() WHERE id = ANY($1::text[]) AND owner IS NULL"

_ACTIVE_SINCE = "coalesce(active_since, created_at)"  # one that an older version has made does not know
_UNPUBLISHED = f"""
SELECT id, session_id FROM tasks
WHERE active_session_id IS NOT NULL AND owner IS NULL
  AND coalesce(
    published_at
      + least(10 * make_interval(secs => $2), greatest(make_interval(secs => $2), published_at - {_ACTIVE_SINCE})),
    {_ACTIVE_SINCE} + make_interval(secs => $1)) < now()
ORDER BY number LIMIT $3"""


def _found(row: Row | None) -> Task | None:
    return None if row is None else parse_task(row)


def _tokens(usage: Usage) -> tuple[int, int, int, int]:
    """What a column can hold, whatever a provider says."""
    counts = usage.input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.cached_tokens
    first, second, third, fourth = (min(max(count, 0), _MOST_TOKENS) for count in counts)
    return first, second, third, fourth


# --- looking up ---------------------------------------------------------------------------------------------------


async def get_task(c: Connection, task_id: TaskId, caller: Caller | None = None, *, lock: bool = False) -> Task:
    """Raises TaskNotFound; with a caller, also when the task's session cannot be reached by them."""
    if caller is None:
        row = await c.fetchrow(_BY_ID_LOCKED if lock else _BY_ID, task_id)
    else:
        row = await c.fetchrow(_BY_CALLER_LOCKED if lock else _BY_CALLER, task_id, caller.user_id)
    if row is None:
        raise TaskNotFound
    return parse_task(row)


async def find_task_by_key(c: Connection, session_id: SessionId, message_key: str) -> Task | None:
    return _found(await c.fetchrow(_BY_KEY, session_id, message_key))


async def find_task_by_number(c: Connection, session_id: SessionId, number: int) -> Task | None:
    """The session's task that a cursor names (`StreamId.task_number`)."""
    return _found(await c.fetchrow(_BY_NUMBER, session_id, number))


async def find_active_task(c: Connection, session_id: SessionId) -> Task | None:
    return _found(await c.fetchrow(_ACTIVE, session_id))


async def find_tasks(c: Connection, task_ids: Sequence[TaskId]) -> list[Task]:
    """Those of the tasks that exist, by number."""
    return [parse_task(row) for row in await c.fetch(_BY_IDS, task_ids)]


async def queued_tasks(c: Connection, session_id: SessionId) -> list[Task]:
    """The turns that wait for the session, in the order in which they will run."""
    return [parse_task(row) for row in await c.fetch(_QUEUED, session_id)]


async def unended_tasks(c: Connection, of: SessionId | Caller) -> list[Task]:
    """What runs and waits in a session, or of a caller: the first 500."""
    whose = (_UNENDED_OF_CALLER, of.quota_key) if isinstance(of, Caller) else (_UNENDED_OF_SESSION, of)
    return [parse_task(row) for row in await c.fetch(*whose)]


async def highest_priority(c: Connection, session_id: SessionId) -> int:
    """Of the turns that wait for the session; 0 when none does."""
    highest: int = await c.fetchval(_HIGHEST, session_id)
    return highest


async def session_usage(c: Connection, session_id: SessionId) -> Usage:
    """The tokens of all of the session's tasks, as far as they are committed."""
    row = await c.fetchrow(_SESSION_USAGE, session_id)
    assert row is not None
    return parse_usage(row)


async def owners(c: Connection) -> set[ExecutorId]:
    """Everybody who has claimed a task that has not ended."""
    return {ExecutorId(row["owner"]) for row in await c.fetch(_OWNERS)}


async def claims_of(c: Connection, owner: ExecutorId) -> dict[Turn, bool]:
    """What this executor has claimed and not ended, and of each whether a cancel is wished."""
    rows = await c.fetch(_CLAIMS, owner)
    return {Turn(TaskId(row["id"]), SessionId(row["session_id"])): row["cancelled"] for row in rows}


async def unpublished_tasks(c: Connection, *, older_than: float, limit: int, again_after: float = 60.0) -> list[Turn]:
    """Active tasks without an owner that the broker may not have: never published in `older_than` seconds since
    they became active, or published `again_after` seconds ago (a broker that lost its data). A second copy is harmless;
    a turn that just waits for a free executor gets one ever more seldom, up to ten times `again_after`."""
    rows = await c.fetch(_UNPUBLISHED, older_than, again_after, limit)
    return [Turn(TaskId(row["id"]), SessionId(row["session_id"])) for row in rows]


# --- beginning ----------------------------------------------------------------------------------------------------


async def count_turns(c: Connection, quota_key: str) -> tuple[int, int]:
    """How many turns of this key are active, and how many wait. Others who count it wait for this transaction's end.

    Needs a transaction: two statements, so that the count sees what the one before committed.
    """
    await c.execute(_LOCK_QUOTA, _QUOTA_LOCKS, quota_key)
    row = await c.fetchrow(_COUNT, quota_key)
    assert row is not None
    return row[0], row[1]


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
    """A queued turn. The caller holds the session's lock and has seen that the key is new and, for `active`, the
    session free; asyncpg's UniqueViolationError says that it had not."""
    user, quota = caller.user_id, caller.quota_key
    row = await c.fetchrow(
        _INSERT, task_id, session_id, user, quota, request_json(request), message_key, active, priority
    )
    assert row is not None
    return parse_task(row)


async def change_request(c: Connection, task_id: TaskId, request: TurnRequest) -> Task | None:
    """Asks a waiting turn for something else. None when it does not wait. The caller holds the session's lock."""
    return _found(await c.fetchrow(_CHANGE_REQUEST, task_id, request_json(request)))


async def activate_next(c: Connection, session_id: SessionId) -> Task | None:
    """Makes the first waiting turn the active one. None when one is active already, or none waits. The caller holds
    the session's lock."""
    return _found(await c.fetchrow(_ACTIVATE_NEXT, session_id))


async def mark_published(c: Connection, task_ids: Sequence[TaskId]) -> None:
    """The broker has confirmed these turns; those that are taken by now need no note."""
    await c.execute(_MARK_PUBLISHED, task_ids)


# --- running ------------------------------------------------------------------------------------------------------


async def claim_new_task(c: Connection, task_id: TaskId, executor_id: ExecutorId) -> Task | None:
    """The first attempt at an active task that nobody has had: the usual case, in one statement. Else None."""
    return _found(await c.fetchrow(_CLAIM_NEW, task_id, executor_id))


async def claim_task(
    c: Connection,
    task_id: TaskId,
    executor_id: ExecutorId,
    *,
    seen_owner: ExecutorId | None,
    seen_attempt: int,
    only_active: bool = True,
) -> Task | None:
    """The next attempt, owned by this executor. None when the task is no longer as it was seen, or has ended.

    A task that waits can be claimed to end it: when a cancel is wished, or with `only_active` false. Taking a task
    from another owner counts as a crash of that owner.
    """
    return _found(await c.fetchrow(_CLAIM, task_id, executor_id, seen_owner, seen_attempt, only_active))


async def release_claim(
    c: Connection, task_id: TaskId, owner: ExecutorId, *, crashed: bool = False, in_hand: bool = True
) -> bool:
    """Hands the task back; `crashed` says that its owner died of it, `in_hand` that the caller has its turn from the
    queue and settles it; else it publishes the turn. False when the claim no longer stands."""
    return await c.fetchval(_RELEASE_ONE, owner, crashed, in_hand, task_id) is not None


async def release_claims(c: Connection, owner: ExecutorId, *, crashed: bool) -> list[Turn]:
    """Hands back all that this executor has; returns the turns, which the caller publishes."""
    rows = await c.fetch(_RELEASE_ALL, owner, crashed, False)
    return [Turn(TaskId(row["id"]), SessionId(row["session_id"])) for row in rows]


async def commit_step(c: Connection, task: Task, *, step: int, checkpoint: StreamId, usage: Usage) -> None:
    """Moves the checkpoint; `usage` is this step's own. Raises Fenced when this attempt no longer stands."""
    key = (task.id, task.attempt, task.owner)
    if await c.fetchval(_COMMIT_STEP, *key, step, str(checkpoint), *_tokens(usage)) is None:
        raise Fenced


async def request_cancel(c: Connection, task_id: TaskId) -> Task | None:
    """Wishes a cancel, which wins over any other end. None when the task has ended, or is unknown."""
    return _found(await c.fetchrow(_REQUEST_CANCEL, task_id))


async def request_cancel_of_session(c: Connection, session_id: SessionId) -> list[Task]:
    """Wishes a cancel of all that has not ended in the session. The caller holds the session's lock."""
    return [parse_task(row) for row in await c.fetch(_REQUEST_CANCEL_OF_SESSION, session_id)]


async def finish_task(
    c: Connection,
    task: Task,
    *,
    status: TaskStatus,
    error: TaskError | None,
    usage: Usage,
    checkpoint: StreamId | None = None,
) -> tuple[Task, bool]:
    """Ends a running task: `cancelled` when that was wished, else `status`. The session is free for its next turn.

    Returns it, and whether other turns of the session wait; the caller holds the session's lock. `usage` is what no
    commit_step has recorded yet; `checkpoint` the last entry of what was said. Raises Fenced when this attempt no
    longer stands or has ended.
    """
    reason = None if error is None else {"code": error.code, "message": error.message}
    key, place = (task.id, task.attempt, task.owner), None if checkpoint is None else str(checkpoint)
    row = await c.fetchrow(_FINISH, *key, status.value, reason, *_tokens(usage), place)
    if row is None:
        raise Fenced
    ended = parse_task(row)
    return replace(ended, usage=ended.usage + usage), row["others_wait"]

"""Branches: the messages of a session form a tree, and one of its branches is the current one.

The messages of a task follow one another, and the first one follows `tasks.parent_sequence`, which is set when the task
becomes active. A branch is the way from a message back to the beginning. The messages of the current branch are those
that are not superseded; its leaf is the newest of them.

A place is the sequence of a message that others follow; 0 is the beginning. A message has a name that is unique in the
tree: `usr_` and the task's id for the user's message, `msg_` and the task's id for its answer. The id that a client
gave to its message may name several: an edit keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.chat.models import ANSWER_ID, OWN_MESSAGE_ID, Message, Task
from backend.chat.store import tasks
from backend.chat.store.messages import COLUMNS, parse_message, visible_messages
from backend.ids import SessionId, TaskId
from backend.postgres import Connection

MAX_NAMES = 100
"""Messages of a client's list that are looked up: the newest ones."""

# Each row of `line` is a task of the branch that ends at $2, with its last message on it.
_LINE = """
WITH RECURSIVE line AS (
    SELECT m.task_id, m.sequence AS last, t.parent_sequence AS parent
    FROM messages m JOIN tasks t ON t.id = m.task_id WHERE m.session_id = $1 AND m.sequence = $2
  UNION ALL
    SELECT m.task_id, m.sequence, t.parent_sequence
    FROM line JOIN messages m ON m.session_id = $1 AND m.sequence = line.parent JOIN tasks t ON t.id = m.task_id
)"""


# --- names and places ---------------------------------------------------------------------------------------------

_LEAF = "SELECT coalesce(max(sequence), 0) FROM messages WHERE session_id = $1 AND superseded_by IS NULL"


async def leaf_of(c: Connection, session_id: SessionId) -> int:
    """Returns the place of the last message of the current branch."""
    leaf: int = await c.fetchval(_LEAF, session_id)
    return leaf


_BY_SEQUENCE = "SELECT task_id, step FROM messages WHERE session_id = $1 AND sequence = $2"


async def _name_of_row(c: Connection, session_id: SessionId, id: str) -> str | None:
    """Returns the name of the message that the row `id` (session id and sequence) belongs to. None if there is none."""
    before, _, sequence = id.rpartition("-")
    if before != session_id or not sequence.isascii() or not sequence.isdecimal() or len(sequence) > 9:
        return None
    row = await c.fetchrow(_BY_SEQUENCE, session_id, int(sequence))
    return None if row is None else f"{ANSWER_ID if row['step'] else OWN_MESSAGE_ID}{row['task_id']}"


_BY_TASK = "SELECT id FROM tasks WHERE session_id = $1 AND id = ANY($2::text[])"
_BY_MESSAGE_ID = """
SELECT message_id, task_id, step FROM messages WHERE session_id = $1 AND role = 'user' AND message_id = ANY($2::text[])
ORDER BY superseded_by IS NULL, sequence"""


async def last_known(c: Connection, session_id: SessionId, ids: Sequence[str]) -> str | None:
    """Returns the name of the last of these messages that the session has or that waits. None if it has none of them.

    `ids` are the ids by which clients know messages. Looks at the last MAX_NAMES of them. Of several messages with the
    same id it takes one that waits, then the one on the current branch, otherwise the newest.
    """
    ids = [await _name_of_row(c, session_id, id) or id for id in ids[-MAX_NAMES:]]
    named = [id for id in ids if id.startswith((ANSWER_ID, OWN_MESSAGE_ID))]
    of_tasks = {row["id"] for row in await c.fetch(_BY_TASK, session_id, [id[4:] for id in named])} if named else set()
    theirs = {row["message_id"]: row for row in await c.fetch(_BY_MESSAGE_ID, session_id, ids)}
    waiting = {
        task.request.message_id: task.id
        for task in await tasks.queued_tasks(c, session_id)
        if task.request.message_id is not None
    }
    for id in reversed(ids):
        if (task_id := waiting.get(id)) is not None:  # an edit that waits has the id of the message that it replaces
            return f"{OWN_MESSAGE_ID}{task_id}"
        if (row := theirs.get(id)) is not None:  # a message that a turn has taken in belongs to that turn's answer
            return f"{ANSWER_ID if row['step'] else OWN_MESSAGE_ID}{row['task_id']}"
        if id in named and id[4:] in of_tasks:
            return id
    return None


_END = """
SELECT coalesce((SELECT max(sequence) FROM messages WHERE task_id = t.id AND (step = 0 OR NOT $3)),
  CASE WHEN $3 THEN (
    SELECT max(sequence) FROM messages
    WHERE task_id = t.request->>'steers' AND t.status = 'completed' AND t.attempt = 0
  ) ELSE t.parent_sequence END)
FROM tasks t WHERE t.session_id = $1 AND t.id = $2"""


async def end_of(c: Connection, session_id: SessionId, name: str) -> int | None:
    """Returns the place after the message with this name. None if it has not been written.

    An answer without messages ends where its question does, and a message that a turn has taken in where that ends.
    """
    end: int | None = await c.fetchval(_END, session_id, name[4:], name.startswith(OWN_MESSAGE_ID))
    return end


_START = """
SELECT min(m.sequence) FROM tasks t JOIN messages m ON m.task_id = t.id
WHERE t.session_id = $1 AND t.id = $2 AND ($3 = (m.step = 0) OR t.kind = 'operation')"""


async def start_of(c: Connection, session_id: SessionId, name: str) -> int | None:
    """Returns the sequence of the first row of the message with this name. None if it has no row."""
    start: int | None = await c.fetchval(_START, session_id, name[4:], name.startswith(OWN_MESSAGE_ID))
    return start


_TASK_AT = "SELECT task_id FROM messages WHERE session_id = $1 AND sequence = $2"


async def task_at(c: Connection, session_id: SessionId, place: int) -> TaskId:
    """Returns the task of the message at this place. There must be one."""
    return TaskId(await c.fetchval(_TASK_AT, session_id, place))


_QUESTION = """
SELECT m.task_id FROM tasks t JOIN messages m ON m.session_id = t.session_id AND m.sequence = t.parent_sequence
WHERE t.id = $1 AND m.step = 0"""


async def question_of(c: Connection, answer: Task) -> TaskId | None:
    """Returns the task whose message a turn answers: its own or, for a regeneration, an earlier one.

    None if a regeneration of an older version has not begun.
    """
    if answer.request.text is not None:
        return answer.id
    if answer.request.parent:
        return TaskId(answer.request.parent.removeprefix(OWN_MESSAGE_ID))
    found: str | None = await c.fetchval(_QUESTION, answer.id)
    return None if found is None else TaskId(found)


_NEWEST_BELOW = """
WITH RECURSIVE below AS (
    SELECT m.task_id, m.sequence AS since FROM messages m WHERE m.session_id = $1 AND m.sequence = $2
  UNION ALL
    SELECT later.id, 0 FROM below b CROSS JOIN LATERAL (
        SELECT t.id FROM messages p JOIN tasks t ON t.session_id = $1 AND t.parent_sequence = p.sequence
        WHERE p.task_id = b.task_id AND p.sequence >= b.since OFFSET 0
    ) AS later
)
SELECT max(newest.sequence) FROM below b CROSS JOIN LATERAL (
    SELECT max(sequence) AS sequence FROM messages WHERE task_id = b.task_id AND sequence >= b.since OFFSET 0
) AS newest"""
# OFFSET 0 keeps each step an index scan. For one join of all, PostgreSQL would read all messages.


async def newest_below(c: Connection, session_id: SessionId, place: int) -> int:
    """Returns the place of the newest message that follows this one on any branch, or `place` if none does.

    The caller has called `adopt`.
    """
    newest: int | None = await c.fetchval(_NEWEST_BELOW, session_id, place)
    return place if newest is None else newest


_IS_CURRENT = "SELECT 1 FROM messages WHERE session_id = $1 AND sequence = $2 AND superseded_by IS NULL"


async def is_on_current(c: Connection, session_id: SessionId, place: int) -> bool:
    """Returns True if the current branch contains the message at `place`, or if that is the beginning."""
    return place == 0 or await c.fetchval(_IS_CURRENT, session_id, place) is not None


async def end_of_branch(c: Connection, session_id: SessionId, place: int) -> int:
    """Returns the leaf of the current branch if it contains `place`, otherwise the newest leaf that follows it."""
    if await is_on_current(c, session_id, place):
        return await leaf_of(c, session_id)
    await adopt(c, session_id)
    return await newest_below(c, session_id, place)


# --- the tree -----------------------------------------------------------------------------------------------------

# The tasks that an older version made active have no parent. A replaced message belongs to the branch of the tasks that
# became active before its replacement.
_ADOPT = """
WITH opened AS (
    SELECT t.id, min(m.sequence) AS first, min(m.created_at) AS at
    FROM tasks t JOIN messages m ON m.task_id = t.id
    WHERE t.session_id = $1 AND t.parent_sequence IS NULL GROUP BY t.id
)
UPDATE tasks SET parent_sequence = coalesce((
    SELECT m.sequence FROM messages m
    LEFT JOIN LATERAL (SELECT min(r.sequence) AS first FROM messages r WHERE r.task_id = m.superseded_by) AS s ON true
    LEFT JOIN tasks t ON t.id = m.superseded_by
    WHERE m.session_id = $1 AND m.sequence < o.first AND m.superseded_by IS DISTINCT FROM o.id
      AND (m.superseded_by IS NULL OR coalesce(s.first > o.first, t.started_at > o.at, true))
    ORDER BY m.sequence DESC LIMIT 1
), 0)
FROM opened o WHERE o.id = tasks.id"""


# Regenerations that have no messages: they failed, were cancelled, or run now.
_ADOPT_SILENT = """
UPDATE tasks SET parent_sequence = coalesce((
    SELECT m.sequence FROM messages m LEFT JOIN tasks s ON s.id = m.superseded_by
    WHERE m.session_id = $1 AND m.role = 'user' AND m.created_at <= coalesce(tasks.started_at, now())
      AND (m.superseded_by IS NULL OR coalesce(s.started_at, 'infinity') > coalesce(tasks.started_at, now()))
    ORDER BY m.sequence DESC LIMIT 1
), 0)
WHERE session_id = $1 AND kind = 'turn' AND request->>'text' IS NULL AND parent_sequence IS NULL
  AND (active_session_id IS NOT NULL OR status IN ('failed', 'cancelled'))
  AND NOT EXISTS (SELECT FROM messages m WHERE m.task_id = tasks.id)
  AND NOT EXISTS (  -- cancelled while it waited: another ran at that time
    SELECT FROM tasks o WHERE o.session_id = $1 AND o.id <> tasks.id AND o.started_at < tasks.started_at
      AND coalesce(o.finished_at, 'infinity') > tasks.started_at)"""


async def adopt(c: Connection, session_id: SessionId) -> None:
    """Gives their parents to the tasks that an older version made active. The caller holds the session's lock."""
    if await c.execute(_ADOPT, session_id) != "UPDATE 0":
        await c.execute(_ADOPT_SILENT, session_id)


_PARENT = "SELECT parent_sequence FROM tasks WHERE id = $1"
_PLACE_BEFORE = """
SELECT coalesce((SELECT max(sequence) FROM messages WHERE task_id = $1 AND sequence < $2),
  (SELECT parent_sequence FROM tasks WHERE id = $1))"""


async def parent_of(c: Connection, message: Message) -> int:
    """Returns the place that a message follows. The caller holds the session's lock."""
    await adopt(c, message.session_id)
    place: int = await c.fetchval(_PLACE_BEFORE, message.task_id, message.sequence)
    return place


_BEGIN = "UPDATE tasks SET parent_sequence = $2 WHERE id = $1"


async def begin_at(c: Connection, task: Task, place: int) -> None:
    """Makes the messages of a task, which has none yet, follow `place`. The caller holds the session's lock."""
    await c.execute(_BEGIN, task.id, place)


_BEGIN_AT_LEAF = f"UPDATE tasks SET parent_sequence = ({_LEAF}) WHERE id = $2"


async def begin_at_leaf(c: Connection, task: Task) -> None:
    """Makes the messages of a task, which has none yet, follow the last message of the current branch.

    The caller holds the session's lock.
    """
    await c.execute(_BEGIN_AT_LEAF, task.session_id, task.id)


_LEAVE = """
UPDATE messages SET superseded_by = $3 WHERE session_id = $1 AND sequence > $2 AND superseded_by IS NULL"""
_SWITCH = f"""{_LINE}, branch AS (
    SELECT m.sequence FROM line JOIN messages m ON m.task_id = line.task_id AND m.sequence <= line.last
)
UPDATE messages SET superseded_by = CASE WHEN sequence IN (SELECT sequence FROM branch) THEN NULL ELSE $3 END
WHERE session_id = $1 AND (superseded_by IS NULL) <> (sequence IN (SELECT sequence FROM branch))"""


async def make_current(c: Connection, session_id: SessionId, place: int, by: TaskId) -> bool:
    """Makes the branch that ends at `place` the current one, for the task `by`. Returns False if it is that already.

    The caller holds the session's lock.
    """
    if place == await leaf_of(c, session_id):
        return False
    await adopt(c, session_id)
    cut = await is_on_current(c, session_id, place)
    await c.execute(_LEAVE if cut else _SWITCH, session_id, place, by)
    return True


_PLACE_OF_TASK = """
SELECT coalesce((SELECT max(sequence) FROM messages WHERE task_id = $1),
  (SELECT parent_sequence FROM tasks WHERE id = $1))"""


async def is_task_on_current(c: Connection, task: Task) -> bool:
    """Returns True if the next message of this active task belongs to the current branch.

    Call it in the snapshot in which the task was read: a step that is stored in between moves the leaf.
    """
    place: int | None = await c.fetchval(_PLACE_OF_TASK, task.id)
    return place is None or place == await leaf_of(c, task.session_id)


# A task without a parent, which an older version made active, gets its own messages alone.
_HISTORY_ON_CURRENT = f"""
SELECT {COLUMNS}, ({_PARENT.replace("$1", "$3")}) AS parent FROM messages
WHERE session_id = $1 AND ((superseded_by IS NULL AND sequence <= ({_PARENT.replace("$1", "$3")})) OR task_id = $3)
ORDER BY sequence DESC LIMIT $2"""
_HISTORY = f"""{_LINE}, branch AS (
    SELECT m.sequence FROM line JOIN messages m ON m.task_id = line.task_id AND m.sequence <= line.last
)
SELECT {COLUMNS} FROM messages
WHERE session_id = $1 AND (sequence IN (SELECT sequence FROM branch) OR task_id = $4)
ORDER BY sequence DESC LIMIT $3"""


async def history_of(c: Connection, task: Task, *, limit: int) -> list[Message]:
    """Returns the newest `limit` messages of a running task's own branch, in order. Its own messages are the last ones.

    That may be another branch than the current one, if the user has switched since.
    """
    rows = await c.fetch(_HISTORY_ON_CURRENT, task.session_id, limit, task.id)
    parent: int | None = rows[0]["parent"] if rows else await c.fetchval(_PARENT, task.id)
    if parent is None:
        return await visible_messages(c, task.session_id, limit=limit)
    before = [row["sequence"] for row in rows if row["task_id"] != task.id]
    is_whole = before[0] == parent if before else parent == 0 or len(rows) == limit
    if not is_whole:
        rows = await c.fetch(_HISTORY, task.session_id, parent, limit, task.id)
    return [parse_message(row) for row in reversed(rows)]

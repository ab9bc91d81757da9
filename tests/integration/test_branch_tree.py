"""Edits, other answers, cut lists, stops, queues, operations and switches of two tabs, against a model of the tree.

The model knows what was written and what followed what at that time. A branch is never lost: whatever happens later,
each message keeps its parent and can be shown again. No turn is hidden: a tab without the newest messages takes no turn
off the shown branch that runs or waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from backend.chat.flows import complete, finish, start, switch
from backend.chat.models import After, Caller, Message, NewMessage, Role, Task, TaskStatus, TextPart, TurnRequest
from backend.chat.outcomes import Outcome, ToolWork
from backend.chat.resources import Resources
from backend.chat.store import alternatives, branches, messages, operations, tasks
from backend.config import Settings
from backend.ids import OperationId, SessionId, StreamId, TaskId, new_executor_id, new_session_id
from backend.postgres import Connection
from backend.resources import open_resources
from tests.faults.scale import FULL, new_seed, scale
from tests.integration.running_api import SETTINGS

EXAMPLES = scale(15, 3_000)
PHASES = [Phase.generate, *([Phase.shrink] if FULL else [])]
NOBODY = Caller(None, "192.0.2.1")
_WAITING = """
SELECT id, request->>'message_id' AS asked, request->>'text' AS text,
  kind = 'turn' AND coalesce((request->>'is_user_message')::boolean, true) AS by_user
FROM tasks WHERE session_id = $1 AND status = 'queued' AND active_session_id IS NULL ORDER BY priority DESC, number"""
UNLIMITED = {"max_running_turns": 1_000_000, "max_waiting_turns": 1_000_000}


@pytest.fixture(scope="module")
async def resources(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Resources]:
    stores = {"database_url": postgres_dsn, "redis_url": redis_dsn}
    async with open_resources(Settings(**{**SETTINGS, **stores, **UNLIMITED})) as resources:
        yield resources


@dataclass
class Tab:
    shown: list[str] = field(default_factory=list)
    """The ids of the messages on the page."""


class Conversation:
    """A session with two tabs, an executor that works step by step, and the model: `rows` and what each followed."""

    def __init__(self, resources: Resources, session: SessionId) -> None:
        self.resources = resources
        self.session = session
        self.tabs = [Tab(), Tab()]
        self.me = new_executor_id()
        self.rows: dict[int, Message] = {}
        self.parent: dict[int, int] = {}
        self.expected: dict[TaskId, Any] = {}
        self.operations: dict[OperationId, TaskId] = {}
        self.sent = 0

    # --- the model ------------------------------------------------------------------------------------------------

    def branch(self, place: int) -> list[int]:
        found: list[int] = []
        while place:
            found.append(place)
            place = self.parent[place]
        return found[::-1]

    def node(self, id: str) -> int | None:
        """The last written message of the one with this name in the tree."""
        mine = [n for n, row in self.rows.items() if row.task_id == id[4:] and (row.step == 0 or id[:4] == "msg_")]
        return max(mine, default=None)

    async def last_known(self, c: Connection, ids: list[str], shown: list[int]) -> str | None:
        """The name of the last of these messages that the session has: of one with several versions the one that waits,
        then the shown one, then the newest."""
        waiting = {row["asked"]: row["id"] for row in await c.fetch(_WAITING, self.session)}
        theirs = {row["id"] for row in await c.fetch("SELECT id FROM tasks WHERE session_id = $1", self.session)}
        for id in reversed(ids):
            if id.startswith("msg_"):
                if id[4:] in theirs:
                    return id
                continue
            versions = [n for n, row in self.rows.items() if row.step == 0 and row.shown_id == id and row.text]
            if id in waiting:
                return f"usr_{waiting[id]}"
            if versions:
                n = max([n for n in versions if n in shown] or versions)
                return f"usr_{self.rows[n].task_id}"
        return None

    async def newest(self, c: Connection, shown: list[int]) -> str | None:
        """The name of what a message follows that is sent alone while a turn runs: the last message of the user that
        waits, else the last shown one."""
        waiting = [row for row in await c.fetch(_WAITING, self.session) if row["by_user"]]
        if waiting:
            return f"{'usr' if waiting[-1]['text'] else 'msg'}_{waiting[-1]['id']}"
        row = self.rows[shown[-1]] if shown else None
        return row and f"{'msg' if row.step else 'usr'}_{row.task_id}"

    async def stored(self, c: Connection) -> tuple[list[Message], list[int]]:
        found = await c.fetch(
            f"SELECT {messages.COLUMNS}, superseded_by FROM messages WHERE session_id = $1 ORDER BY sequence",
            self.session,
        )
        return [messages.parse_message(row) for row in found], [r["sequence"] for r in found if not r["superseded_by"]]

    async def check(self) -> None:
        async with self.resources.database.connection() as c:
            rows, shown = await self.stored(c)
            before, self.rows = self.rows, {row.sequence: row for row in rows}
            assert all(self.rows[n].task_id == row.task_id for n, row in before.items()), "a message is lost"
            for row in rows[len(before) :]:
                own = [one.sequence for one in rows if one.task_id == row.task_id and one.sequence < row.sequence]
                self.parent[row.sequence] = max(own) if own else await self._parent_of(c, row.task_id)
            for row in rows:
                if row.sequence - 1 not in self.rows or self.rows[row.sequence - 1].task_id != row.task_id:
                    assert await self._parent_of(c, row.task_id) == self.parent[row.sequence], "a parent changed"
            assert shown == self.branch(shown[-1] if shown else 0), "what is shown is one branch, whole"
            active = await tasks.find_active_task(c, self.session)
            if active is not None:
                await self._check_history(c, active)
            await self._check_alternatives(c, rows, shown)

    async def _parent_of(self, c: Connection, task: TaskId) -> int:
        parent: int = await c.fetchval("SELECT parent_sequence FROM tasks WHERE id = $1", task)
        return parent

    async def _check_history(self, c: Connection, active: Task) -> None:
        mine = [n for n, row in self.rows.items() if row.task_id == active.id]
        wanted = self.branch(max(mine, default=await self._parent_of(c, active.id)))
        history = await branches.history_of(c, active, limit=10_000)
        assert [row.sequence for row in history] == wanted, "a model reads the branch of its own task"

    async def _check_alternatives(self, c: Connection, rows: list[Message], shown: list[int]) -> None:
        page = [self.rows[n] for n in shown]
        near = await alternatives.following(c, self.session, page)
        told = {one.id: one.count for one in alternatives.alternatives_of(page, near, {})}
        for n in shown:
            siblings = [one for one, parent in self.parent.items() if parent == self.parent[n]]
            row = self.rows[n]
            id = row.shown_id if row.role is Role.USER and row.text else f"msg_{row.task_id}"
            if len(siblings) > 1:
                assert told.get(id) == len(siblings), "one can switch to all that followed the same message"

    # --- what tabs do ---------------------------------------------------------------------------------------------

    async def send(self, tab: Tab, how: str) -> None:
        self.sent += 1
        id = f"m{self.sent}"
        after = {
            "list": After(tuple(tab.shown)),
            "whole": After(tuple(tab.shown), exact=True),
            "alone": None,
        }[how]
        async with self.resources.database.connection() as c:
            _, shown = await self.stored(c)
            busy = await tasks.find_active_task(c, self.session) is not None
            if how != "alone":
                known = await self.last_known(c, tab.shown, shown)
            else:
                known = await self.newest(c, shown) if busy else None
        task = await self._start(TurnRequest(id, id), id, after)
        await self.check()
        self.expected[task.id] = (how, known, shown, busy)
        if task.active:
            await self._check_place(task.id, shown)
        tab.shown = [*tab.shown, id, f"msg_{task.id}"]

    async def edit(self, tab: Tab, choice: int) -> None:
        asked = [id for id in tab.shown if id.startswith("m") and not id.startswith("msg_")]
        if asked:
            self.sent += 1
            id = asked[choice % len(asked)]
            task = await self._start(TurnRequest(f"text {self.sent}", id, revises=id), None, None)
            tab.shown = [*tab.shown[: tab.shown.index(id) + 1], f"msg_{task.id}"]

    async def again(self, tab: Tab, choice: int) -> None:
        asked = [id for id in tab.shown if id.startswith("m") and not id.startswith("msg_")]
        if asked:
            id = asked[choice % len(asked)]
            task = await self._start(TurnRequest(None, revises=id), None, None)
            tab.shown = [*tab.shown[: tab.shown.index(id) + 1], f"msg_{task.id}"]

    async def cut(self, tab: Tab, choice: int) -> None:
        tab.shown = tab.shown[: choice % (len(tab.shown) + 1)]

    async def reload(self, tab: Tab) -> None:
        async with self.resources.database.connection() as c:
            _, shown = await self.stored(c)
        ids = (self.rows[n].shown_id if self.rows[n].step == 0 else f"msg_{self.rows[n].task_id}" for n in shown)
        tab.shown = list(dict.fromkeys(ids))

    async def switch(self, choice: int) -> None:
        """Each message can be shown, by its name."""
        if not self.rows:
            return
        n = sorted(self.rows)[choice % len(self.rows)]
        row = self.rows[n]
        asked = row.role is Role.USER and bool(row.text)
        await switch.switch_branch(self.resources, NOBODY, self.session, f"{'usr' if asked else 'msg'}_{row.task_id}")
        async with self.resources.database.connection() as c:
            _, shown = await self.stored(c)
        assert n in shown, "a branch is lost"

    async def _start(self, request: TurnRequest, key: str | None, after: After | None) -> Task:
        started = await start.start_turn(
            self.resources, NOBODY, self.session, request, message_key=key, create_session=True, after=after
        )
        return started.task

    async def _check_place(self, task: TaskId, shown_before: list[int]) -> None:
        """Checks the place of a message that has just begun, against what its tab knew when it was sent."""
        how, known, shown_then, busy = self.expected.pop(task, (None,) * 4)
        first = min((n for n, row in self.rows.items() if row.task_id == task), default=None)
        if how is None or first is None:
            return
        place = self.parent[first]
        end = self.node(known) if known is not None else None
        if end is not None:
            assert end in self.branch(place) or how == "whole", "the answer follows what the page shows"
        if how == "whole" and end is not None:
            assert place == end
        if not busy and how != "whole" and (end is None or end == (shown_then[-1:] or [0])[0]):
            assert place == (shown_then[-1] if shown_then else 0), "nothing is hidden by a tab that knows the leaf"
        if busy and how == "list" and end in shown_before:
            assert shown_before == self.branch(place)[: len(shown_before)], "a turn that ran or waited is hidden"

    # --- what the server does -------------------------------------------------------------------------------------

    async def work(self, how: str) -> None:
        """Lets the active task make one step: commit an answer, or end with or without one."""
        async with self.resources.database.connection() as c:
            task = await tasks.find_active_task(c, self.session)
            if task is not None and task.owner is None:
                task = await tasks.claim_task(c, task.id, self.me, seen_owner=None, seen_attempt=task.attempt)
        if task is None:
            return
        said = NewMessage(Role.ASSISTANT, (TextPart("answer"),))
        if how == "commit":
            async with self.resources.database.transaction() as c:
                await finish.append_new_messages(c, task, task.steps + 1, [said])
                await tasks.commit_step(
                    c, task, step=task.steps + 1, checkpoint=StreamId(task.fence, 1), usage=task.usage
                )
            return
        if how == "operation":
            work = ToolWork(task.id, "work", f"call_{task.id}_{task.steps}", {})
            async with self.resources.database.connection() as c:
                operation = await operations.register(c, self.session, work, limit=600)
                await operations.open_operation(c, operation, "0-0", limit=600)
            self.operations[operation.id] = task.id
        async with self.resources.database.connection() as c:
            _, shown = await self.stored(c)
        failed = how in ("fail", "silence")
        ending = await finish.end_task(
            self.resources, task, status=TaskStatus.FAILED if failed else TaskStatus.COMPLETED, step=task.steps + 1,
            said=() if how == "silence" else (said,),
        )  # fmt: skip
        await self.check()
        if ending.next_turn is not None:
            await self._check_place(ending.next_turn.task_id, shown)

    async def outcome(self) -> None:
        if not self.operations:
            return
        id = next(iter(self.operations))
        turn = self.operations.pop(id)
        done = await complete.complete_operation(self.resources, id, Outcome(True, "done"))
        await self.check()
        if done.next_turn is not None and (end := self.node(f"msg_{turn}")) is not None:
            note = min(n for n, row in self.rows.items() if row.task_id == done.task_id)
            assert end in self.branch(note), "the outcome belongs to the branch of its call"

    async def stop(self, choice: int) -> None:
        async with self.resources.database.connection() as c:
            unended = [task for task in await tasks.unended_tasks(c, self.session) if task.is_turn and not task.owner]
            if not unended:
                return
            task = await tasks.request_cancel(c, unended[choice % len(unended)].id)
        assert task is not None
        await finish.end_unowned(self.resources, task, TaskStatus.CANCELLED)


TAB, CHOICE = st.integers(0, 1), st.integers(0, 30)
ACTS = st.one_of(
    st.tuples(st.just("send"), TAB, st.sampled_from(["list", "list", "whole", "alone"])),
    st.tuples(st.just("work"), st.sampled_from(["commit", "end", "end", "end", "fail", "silence", "operation"])),
    st.tuples(st.sampled_from(["edit", "again", "cut"]), TAB, CHOICE),
    st.tuples(st.just("reload"), TAB),
    st.tuples(st.sampled_from(["switch", "stop"]), CHOICE),
    st.tuples(st.just("outcome")),
)


@seed(new_seed())
@settings(max_examples=EXAMPLES, phases=PHASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(acts=st.lists(ACTS, min_size=8, max_size=25))
async def test_no_branch_is_lost_and_no_turn_is_hidden(resources: Resources, acts: list[Any]) -> None:
    conversation = Conversation(resources, new_session_id())
    await conversation._start(TurnRequest("hello", "m0"), "m0", None)
    for tab in conversation.tabs:
        tab.shown = ["m0"]
    await conversation.check()
    for name, *arguments in acts:
        if name in ("send", "edit", "again", "cut", "reload"):
            arguments[0] = conversation.tabs[arguments[0]]
        await getattr(conversation, name)(*arguments)
        await conversation.check()
    for n in range(len(conversation.rows)):
        await conversation.switch(n)
        await conversation.check()

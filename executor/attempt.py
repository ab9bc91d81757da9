"""One attempt at a task, from claim to end: the model's answer goes into the stream, its steps into Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from backend.chat import keys, messages, operations, sessions, tasks
from backend.chat.chunks import END, Data, Start, StartStep
from backend.chat.feed import Hint
from backend.chat.flows import House
from backend.chat.liveness import clock
from backend.chat.locks import Holder
from backend.chat.models import (
    Ending,
    Message,
    NewMessage,
    Role,
    Task,
    TaskError,
    TaskKind,
    TaskStatus,
    ToolResultPart,
    Usage,
)
from backend.chat.outcomes import Operation
from backend.chat.snapshot import step_chunks, terminal_chunks
from backend.chat.writing import StreamWriter
from backend.errors import AttemptEnded, Fenced, ProviderError, Unavailable
from backend.failpoints import reach
from backend.ids import SessionId
from backend.postgres import Connection
from executor.agent.agent import Agent, Commit, Row, pending_calls
from executor.commits import Commits
from executor.crew import Crew
from executor.operations import Operations
from executor.takeover import take_over
from executor.tools.tool import ToolContext

HISTORY_ROWS = 2_000
TITLE_WAIT = 0.25
TOO_LONG = TaskError("turn_timeout", "This answer took too long and was stopped.")
OUR_FAULT = TaskError("internal_error", "Something went wrong on our side; please try again.")
CRASHED = TaskError("crashed", "The server stopped several times while it worked on this answer; please try again.")
logger = logging.getLogger(__name__)


class Interruption(StrEnum):
    """Why an attempt is stopped from outside."""

    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    LOST = "lost"


class HandedBack(AttemptEnded):
    """The process is stopping; another executor goes on from the checkpoint."""


class Attempt:
    """`task` is the claim. `run` ends the task and returns how, or raises why this attempt ended without."""

    def __init__(self, house: House, crew: Crew, task: Task) -> None:
        self._house = house
        self._crew = crew
        self._task = task
        self._commits = Commits(house, task)
        self._interruption: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()
        self._committing = asyncio.Lock()
        self._title: asyncio.Future[None] | None = None
        self._ending = False
        self._began = time.monotonic()
        self._checked_at = clock()
        self.stream = keys.stream_key(task.session_id, task.id)
        self.holder = Holder(house.me, task.id)

    @property
    def session_id(self) -> SessionId:
        return self._task.session_id

    def interrupt(self, why: Interruption) -> None:
        """Asks it to stop; returns at once. The first reason counts."""
        if not self._interruption.done():
            self._interruption.set_result(why)

    async def run(self) -> Ending:
        """Raises Fenced, StreamGone, StreamUnavailable, HandedBack or Unavailable: then the task goes on elsewhere."""
        async with self._house.database.connection() as c:
            rows = await messages.visible_messages(c, self._task.session_id, limit=HISTORY_ROWS)
            operation = await self._operation(c)
        said: list[Message | NewMessage] = [
            row for row in rows if row.task_id == self._task.id and row.role is not Role.USER
        ]
        if operation is not None:  # its stream is a whole message by itself, which begins with the call
            said = [*(operation.said if self._task.steps else [operation.call]), *said]
        writer, step_open = await self._open_stream(said)
        agent = self._crew.agent(self._task, self)
        outcome = _outcome_of(operation) if operation is not None and not self._task.steps else None
        agent.recall(said, self._task.usage, step_open=step_open, outcome=outcome)
        if self._task.cancel_requested:
            return await self._stop(agent, writer, TaskStatus.CANCELLED, None)
        if self._task.crashes >= self._house.settings.max_crashes:
            return await self._stop(agent, writer, TaskStatus.FAILED, CRASHED)
        if _is_first_turn(rows):
            self._title = self._crew.start(self._give_title(rows[0].text, writer))
        return await self._answer(agent, writer, rows if operation is None else _with_call(rows, operation))

    async def _operation(self, c: Connection) -> Operation | None:
        if self._task.kind is not TaskKind.OPERATION:
            return None
        return (await operations.operations_of_tasks(c, [self._task.id]))[self._task.id]

    async def _open_stream(self, said: Sequence[Message | NewMessage]) -> tuple[StreamWriter, bool]:
        """The stream, ready for the next chunk, and whether its readers have a step open."""
        if self._task.attempt == 1:
            writer = self._house.flusher.writer(self.stream, self._task.fence, create=True)
            await writer.append(Start(self._task.message_id))
            return writer, False
        mid_step = bool(pending_calls(said))
        taken = await take_over(self._house.streams, self._house.flusher, self._task, mid_step=mid_step)
        if taken.anew:
            await taken.writer.append(Start(self._task.message_id), *step_chunks(said))
            return taken.writer, mid_step
        return taken.writer, True  # the marker stands for the next step's start-step

    async def _answer(self, agent: Agent, writer: StreamWriter, rows: Sequence[Row]) -> Ending:
        job = asyncio.ensure_future(self._drive(agent, writer, rows))
        try:
            events: set[asyncio.Future[Any]] = {job, self._interruption}
            await asyncio.wait(events, timeout=self._time_left(), return_when=asyncio.FIRST_COMPLETED)
            async with self._committing:  # a commit under way is finished first: nobody must wonder if it took place
                job.cancel()
        finally:
            job.cancel()
            await asyncio.wait({job})
        return await self._conclude(agent, writer, job)

    async def _conclude(self, agent: Agent, writer: StreamWriter, job: asyncio.Future[Commit]) -> Ending:
        failure = None if job.cancelled() else job.exception()
        if not job.cancelled() and failure is None:
            return await self._end(agent, writer, TaskStatus.COMPLETED, None, job.result())
        if isinstance(failure, AttemptEnded | Unavailable):
            raise failure
        if isinstance(failure, ProviderError):
            return await self._stop(agent, writer, TaskStatus.FAILED, TaskError(failure.code, str(failure)))
        if failure is not None:  # the boundary of a turn: a fault of ours ends this turn, visibly, and no other
            logger.error("turn failed by a fault of ours", exc_info=failure)
            return await self._stop(agent, writer, TaskStatus.FAILED, OUR_FAULT)
        if not self._interruption.done():
            return await self._stop(agent, writer, TaskStatus.FAILED, TOO_LONG)
        if self._interruption.result() is Interruption.HANDED_BACK:
            raise HandedBack
        if self._interruption.result() is Interruption.LOST:
            raise Fenced
        return await self._stop(agent, writer, TaskStatus.CANCELLED, None)

    async def _stop(self, agent: Agent, writer: StreamWriter, status: TaskStatus, error: TaskError | None) -> Ending:
        """Ends it in the middle of an answer: what is open is closed, what was said is kept."""
        closing, kept = agent.interrupt("cancelled" if error is None else error.message)
        await writer.append(*closing)
        return await self._end(agent, writer, status, error, Commit(tuple(kept), Usage()))

    async def _drive(self, agent: Agent, writer: StreamWriter, rows: Sequence[Row]) -> Commit:
        """Sends what the agent yields where it belongs; returns its last commit, not committed yet."""
        awaited = self._task.attempt == 1
        async with aclosing(agent.run(rows)) as items:
            async for item in items:
                if not isinstance(item, Commit):
                    await writer.append(item)
                    if awaited and not isinstance(item, StartStep):
                        awaited = False
                        self._crew.metrics.count_first_chunk(time.monotonic() - self._began)
                elif item.last is not None:
                    return item
                else:
                    checkpoint = await writer.drain()
                    async with self._committing:
                        await self._commits.commit_step(item.messages, checkpoint, item.usage)
        raise AssertionError("an agent's last item is a Commit with a reason")

    async def _end(
        self, agent: Agent, writer: StreamWriter, status: TaskStatus, error: TaskError | None, last: Commit
    ) -> Ending:
        """Always in this order: the commit in Postgres, then the terminal chunks."""
        if self._title is not None:
            await asyncio.wait({self._title}, timeout=TITLE_WAIT)
        self._ending = True
        checkpoint = await writer.drain()
        reach("before_final_commit")
        ending = await self._commits.end(status, error, last.messages, checkpoint, last.usage)
        reach("after_final_commit")
        try:
            await writer.append(*terminal_chunks(ending.task, step_open=agent.step_open, reason=last.last))
            await writer.control(END)
            await writer.drain()
        except AttemptEnded as lost:  # the end stands: readers take it from the row
            logger.warning("terminal chunks not written", extra={"why": type(lost).__name__})
        return ending

    def _time_left(self) -> float:
        return time_left(self._task, self._house.settings.turn_timeout)

    async def _give_title(self, text: str, writer: StreamWriter) -> None:
        """Names the session after its first message, for the list and, while it is open, for who reads the stream."""
        title = await self._crew.title_of(text)
        async with self._house.database.connection() as c:
            named = await sessions.set_title(c, self._task.session_id, title, only_if_untitled=True)
        if named:
            self._house.feed.tell(Hint.TITLE_CHANGED, self._task.session_id, self._task.user_id, title=title)
        if named and not self._ending:
            with contextlib.suppress(AttemptEnded):
                await writer.append(Data("title", {"title": title}, transient=True))

    # --- what tool calls need (executor.agent.calls.Desk) ---

    def context_of(self, tool_call_id: str) -> ToolContext:
        task, house = self._task, self._house
        desk = Operations(house, task.session_id, self._crew.start_work)
        return ToolContext(task.session_id, task.id, tool_call_id, task.user_id, house.database, desk)

    async def check_claim(self) -> None:
        """Costs nothing while the heartbeat was always in time; else asks Postgres whether the claim still stands."""
        if not self._house.liveness.pulse.lapsed_since(self._checked_at):
            return
        now = clock()
        async with self._house.database.connection() as c:
            task = await tasks.get_task(c, self._task.id)
        if (task.attempt, task.owner) != (self._task.attempt, self._house.me):
            raise Fenced
        self._checked_at = now


def time_left(task: Task, limit: float) -> float:
    """Seconds, of the `limit` that a turn may take from its first attempt on."""
    ran = (datetime.now(UTC) - task.started_at).total_seconds() if task.started_at is not None else 0.0
    return max(0.0, limit - ran)


def _outcome_of(operation: Operation) -> ToolResultPart:
    """What its stream shows of the call; of one that has no outcome, and is here to be ended, that it was cancelled."""
    work = operation.work
    return operation.outcome or ToolResultPart(work.tool_call_id, work.tool_name, operations.CANCELLED, is_error=True)


def _with_call(rows: Sequence[Message], operation: Operation) -> Sequence[Row]:
    """The history, in which the call and its result stand: before the note, when the turn that made the call has given
    way to an edit or another answer, or ended without its tool message."""
    id = operation.work.tool_call_id
    if any(isinstance(part, ToolResultPart) and part.tool_call_id == id for row in rows for part in row.parts):
        return rows
    place = next((n for n, row in enumerate(rows) if row.task_id == operation.task_id), len(rows))
    return [*rows[:place], *operation.said, *rows[place:]]


def _is_first_turn(rows: Sequence[Message]) -> bool:
    """The user's first message, and nothing before it; a note of a service is no message to name a session after."""
    users = [row for row in rows if row.role is Role.USER]
    return len(users) == 1 and rows[0] is users[0] and bool(rows[0].text)

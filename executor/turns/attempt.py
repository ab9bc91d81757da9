"""One attempt at a task, from claim to end: writes the model's answer to the stream, and its steps to Postgres."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from backend.chat import keys
from backend.chat.leases.liveness import clock
from backend.chat.leases.locks import Holder
from backend.chat.models import (
    DataPart,
    EndedTask,
    Message,
    NewMessage,
    Role,
    Task,
    TaskError,
    TaskStatus,
    Usage,
)
from backend.chat.protocol.chunks import END, Start, StartStep
from backend.chat.protocol.chunks_from_rows import steering_chunks, step_chunks, terminal_chunks
from backend.chat.resources import Resources
from backend.chat.store.instructions import instructions_of
from backend.chat.streams.writer import StreamWriter
from backend.errors import AttemptEnded, Fenced, ProviderError, Unavailable
from backend.failpoints import reach
from backend.ids import SessionId
from backend.tracing import part
from executor.agent.agent import Agent, Commit, Row, pending_calls
from executor.turns.commits import Commits
from executor.turns.context import ExecutorContext
from executor.turns.continuation import choice_of, operation_of, outcome_of, with_call
from executor.turns.cut_answers import with_notes_on_cut_answers
from executor.turns.history import read_history
from executor.turns.summary import SummaryJob, is_full
from executor.turns.takeover import take_over
from executor.turns.title import SessionTitle
from executor.turns.tool_host import AttemptToolHost

TOO_LONG = TaskError("turn_timeout", "This answer took too long and was stopped.")
INTERNAL_ERROR = TaskError("internal_error", "Something went wrong on our side; please try again.")
CRASHED = TaskError("crashed", "The server stopped several times while it worked on this answer; please try again.")
logger = logging.getLogger(__name__)


class Interruption(StrEnum):
    """Reasons to stop a running attempt."""

    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    LOST = "lost"


class HandedBack(AttemptEnded):
    """This process gives the turn back to the queue; the next attempt continues from the checkpoint."""


class Attempt:
    """One attempt at a task; `task` is its claim."""

    def __init__(self, resources: Resources, context: ExecutorContext, task: Task) -> None:
        self._resources = resources
        self._context = context
        self._task = task
        self._commits = Commits(resources, task)
        self._tool_host = AttemptToolHost(resources, context, task)
        self._interruption: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()
        self._committing = asyncio.Lock()
        self._title: SessionTitle | None = None
        self._notice: DataPart | None = None
        self._started_at = time.monotonic()
        self._claimed_at = clock()
        self.stream = keys.stream_key(task.session_id, task.id)
        self.holder = Holder(resources.me, task.id)
        self._summarises = resources.settings.chat_summaries and not task.request.temporary

    @property
    def session_id(self) -> SessionId:
        return self._task.session_id

    def interrupt(self, why: Interruption) -> None:
        """Asks the attempt to stop, and returns at once. Only the first reason counts."""
        if not self._interruption.done():
            self._interruption.set_result(why)

    async def run(self) -> EndedTask:
        """Runs the attempt until it has ended the task.

        Raises Fenced, StreamGone, StreamUnavailable, HandedBack or Unavailable if the task needs another attempt.
        """
        async with self._resources.database.connection() as c:
            history = await read_history(c, self._task, summarised=self._summarises)
            operation = self._tool_host.operation = await operation_of(c, self._task)
            choice = await choice_of(c, self._task)
            told = await instructions_of(c, self._task.session_id)
        rows = history.rows
        committed: list[Message | NewMessage] = [
            row for row in rows if row.task_id == self._task.id and (row.role is not Role.USER or row.steered)
        ]
        if operation is not None:  # the stream of an operation is a message of its own, which begins with the call
            committed = [*(operation.messages if self._task.steps else [operation.call]), *committed]
        await self._context.load_prices()
        await self._context.prepare_tools(self._task)
        writer, step_open = await self._open_stream(committed)
        files = self._context.prompt_files(self._resources, self._task)
        agent = self._context.agent(self._task, self._tool_host, operation, choice, told, files.loaded)
        approved = operation if operation is not None and operation.to_run else None
        delivered = operation is not None and approved is None and not self._task.steps
        outcome = outcome_of(operation) if operation is not None and delivered else None
        agent.recall(committed, self._task.usage, step_open=step_open, outcome=outcome, approved=approved)
        if self._task.cancel_requested:
            return await self._stop(agent, writer, TaskStatus.CANCELLED, None)
        if self._task.crashes >= self._resources.settings.max_crashes:
            return await self._stop(agent, writer, TaskStatus.FAILED, CRASHED)
        if not self._task.request.temporary and _is_first_turn(rows):
            self._title = SessionTitle(self._resources, self._context, self._task, _subject_of(rows[0]), writer)
        rows = history.prompt_rows(history.newer)
        self._notice = history.notice
        shown = rows if operation is None else with_call(rows, operation)
        return await self._answer(agent, writer, with_notes_on_cut_answers(shown, history.stopped))

    async def _open_stream(self, committed: Sequence[Row]) -> tuple[StreamWriter, bool]:
        """Returns the writer of the stream, and whether a step is open in it."""
        if self._task.attempt == 1:
            writer = self._resources.flusher.writer(self.stream, self._task.fence, create=True)
            await writer.append(Start(self._task.message_id))
            return writer, False
        mid_step = bool(pending_calls(committed))
        taken = await take_over(self._resources.streams, self._resources.flusher, self._task, mid_step=mid_step)
        if taken.anew:
            await taken.writer.append(Start(self._task.message_id), *step_chunks(committed))
            return taken.writer, mid_step
        shown = self._task.steps  # a step after the one that took messages in proves that the stream shows them
        unshown = [row for row in committed if isinstance(row, Message) and row.steered and row.step == shown]
        await taken.writer.append(*steering_chunks(unshown))
        return taken.writer, True  # the takeover's marker stands for the start-step of the next step

    async def _answer(self, agent: Agent, writer: StreamWriter, rows: Sequence[Row]) -> EndedTask:
        job = asyncio.ensure_future(self._drive(agent, writer, rows))
        try:
            events: set[asyncio.Future[Any]] = {job, self._interruption}
            await asyncio.wait(events, timeout=self._time_left(), return_when=asyncio.FIRST_COMPLETED)
            async with self._committing:  # a running commit ends first, so that its result is known
                job.cancel()
        finally:
            job.cancel()
            await asyncio.wait({job})
        return await self._conclude(agent, writer, job)

    async def _conclude(self, agent: Agent, writer: StreamWriter, job: asyncio.Future[Commit]) -> EndedTask:
        failure = None if job.cancelled() else job.exception()
        if not job.cancelled() and failure is None:
            return await self._end(agent, writer, TaskStatus.COMPLETED, None, job.result())
        if isinstance(failure, AttemptEnded | Unavailable):
            raise failure
        if isinstance(failure, ProviderError):
            return await self._stop(agent, writer, TaskStatus.FAILED, TaskError(failure.code, str(failure)))
        if failure is not None:  # the boundary of a turn: an internal error fails this turn and no other
            logger.error("turn failed because of an internal error", exc_info=failure)
            return await self._stop(agent, writer, TaskStatus.FAILED, INTERNAL_ERROR)
        if not self._interruption.done():
            return await self._stop(agent, writer, TaskStatus.FAILED, TOO_LONG)
        if self._interruption.result() is Interruption.HANDED_BACK:
            raise HandedBack
        if self._interruption.result() is Interruption.LOST:
            raise Fenced
        return await self._stop(agent, writer, TaskStatus.CANCELLED, None)

    async def _stop(self, agent: Agent, writer: StreamWriter, status: TaskStatus, error: TaskError | None) -> EndedTask:
        """Ends the task in the middle of an answer: closes its open parts and keeps what the model has written."""
        closing, new_messages = agent.interrupt("cancelled" if error is None else error.message)
        await writer.append(*closing)
        last = Commit(tuple(new_messages), agent.uncommitted_usage, result=agent.uncommitted_result)
        return await self._end(agent, writer, status, error, last)

    async def _drive(self, agent: Agent, writer: StreamWriter, rows: Sequence[Row]) -> Commit:
        """Writes the agent's chunks to the stream and stores its commits, except the last, which it returns."""
        first_chunk_due = self._task.attempt == 1
        if self._task.steered and await agent.asks_model_next():
            await self._commit(agent, writer, Commit((), Usage(), goes_on=True))
        async with aclosing(agent.run(rows, self._notice)) as items:
            async for item in items:
                if not isinstance(item, Commit):
                    await writer.append(item)
                    if first_chunk_due and not isinstance(item, StartStep):
                        first_chunk_due = False
                        self._context.metrics.count_first_chunk(time.monotonic() - self._started_at)
                elif item.last is not None:
                    return item
                else:
                    await self._commit(agent, writer, item)
        raise AssertionError("an agent's last item is a Commit with a reason")

    async def _commit(self, agent: Agent, writer: StreamWriter, item: Commit) -> None:
        """Stores a commit. If the model is asked next, hands the messages that wait for this turn to the agent."""
        checkpoint = await writer.drain()
        async with self._committing:
            with part("commit step", {}):
                taken = await self._commits.commit_step(
                    item.messages, checkpoint, item.usage, item.result, takes_in=item.goes_on
                )
            if taken:
                reach("after_steer_commit")
                agent.take_in(taken)
                await writer.append(*steering_chunks(taken))
                await self._commits.commit_step((), await writer.drain(), Usage())  # the stream shows them now

    async def _end(
        self, agent: Agent, writer: StreamWriter, status: TaskStatus, error: TaskError | None, last: Commit
    ) -> EndedTask:
        """Commits the end in Postgres, then writes the terminal chunks; never the other way round."""
        if self._title is not None:
            await self._title.leave_stream()
        checkpoint = await writer.drain()
        reach("before_final_commit")
        with part("commit end", {}):
            ending = await self._commits.end(
                status, error, last.messages, checkpoint, last.usage, last.last, last.result
            )
        reach("after_final_commit")
        try:
            await writer.append(*terminal_chunks(ending.task, step_open=agent.step_open, taken=ending.taken))
            await writer.control(END)
            await writer.drain()
        except AttemptEnded as lost:  # the end is stored, and readers take it from the task's row
            logger.warning("terminal chunks were not written", extra={"error": type(lost).__name__})
        if self._summarises and ending.task.status is TaskStatus.COMPLETED and is_full(agent.prompt):
            begun = self._context.start_work(SummaryJob(self._resources, self._context, ending.task).run())
            if not begun:
                self._context.metrics.count_summary("skipped")
        return ending

    def _time_left(self) -> float:
        here = clock() - self._claimed_at
        return max(0.0, time_left(self._task, self._resources.settings.turn_timeout) - here)


def time_left(task: Task, limit: float) -> float:
    """Returns the seconds of the `limit`, counted from the first attempt, that were left when the row was read."""
    return max(0.0, limit - task.age)


def _subject_of(message: Message) -> str:
    """Returns what a title is made of: the text, or the names of the files if there is none."""
    return message.text or ", ".join(file.filename for file in message.files)


def _is_first_turn(rows: Sequence[Message]) -> bool:
    """Checks that the history begins with its only question, and that pages show it, unlike a service's note."""
    users = [row for row in rows if row.role is Role.USER and not row.steered]
    return len(users) == 1 and rows[0] is users[0] and rows[0].is_shown

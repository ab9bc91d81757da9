"""Operations as tools use them: long work that another service, or this process beside its turns, does for one call.

register            stores the operation in Postgres, before the service is asked, so that no outcome can come too early
ask                 asks the user, whose answer is the outcome
ask_now             asks the user while the call waits, for minutes at most
mark_opened         the service has accepted the work: its outcome comes later, and the operation's stream begins
begin_run           the agent platform does the work as a run, for which executors ask
register_remote     a tool server does the work as a task of its own, for which executors ask
settle              the service has answered at once: the answer is the tool's output, and no further turn follows
fail                the tool has failed: if no service has accepted its operation, that ends too
run_in_background   this process does the work itself
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from backend.chat.flows.complete import complete_operation, settle_operation, tell_progress
from backend.chat.keys import stream_key
from backend.chat.models import ANSWER_ID, Json
from backend.chat.outcomes import (
    ABANDONED,
    AGENT_PLATFORM,
    AGENT_RUN,
    AGENT_SCHEDULE,
    DISMISSED,
    EXPIRED,
    Operation,
    Outcome,
    Progress,
    RemoteTask,
    ToolWork,
)
from backend.chat.protocol.chunks import Start, StartStep
from backend.chat.protocol.tool_outputs import call_chunk
from backend.chat.resources import Resources
from backend.chat.store import operations, questions, remote_tasks
from backend.chat.store.operations import CANCELLED
from backend.chat.streams.event_feed import Hint
from backend.errors import (
    AlreadyCompleted,
    AttemptEnded,
    OperationGone,
    OperationNotFound,
    TooManyOperations,
    TooManyRuns,
    TooManySchedules,
    Unavailable,
)
from backend.ids import BEGINNING, OperationId, SessionId, fence_of
from executor.tools.context import StartedOperation
from executor.tools.tool import OperationAccepted, outcome_of

ACCEPT_LIMIT = 900.0
"""Seconds in which a service must accept an operation; asking it may take some minutes."""
STORE_TRIES, STORE_PAUSE = 120, 5.0
"""The number of tries to store an outcome while Postgres is unavailable, and seconds between two tries."""
BUSY = Outcome(
    False,
    {"error_type": "service_unavailable"},
    "The server is busy with other long-running work. Please try again later.",
)
REPORT_EVERY = 1.0
"""Seconds between two reports of progress of an operation."""
CHECK_EVERY = 1.0
"""Seconds between two checks whether work that runs in this process is still needed."""
LOOK_EVERY = 0.5
"""Seconds between two checks for the answer to a question for which a call waits."""
StartInBackground = Callable[[Coroutine[Any, Any, None]], bool]
"""Starts work that outlives the turn. Returns False, and closes the coroutine, if too much work runs already."""
logger = logging.getLogger(__name__)


class WaitingCalls:
    """The calls of this process that wait for a user. Each holds the slot of its turn, so only `most` may wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._number = 0
        self.over = False
        """The process stops, so every call goes on without an answer."""

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts one call while the block runs. Raises TooManyOperations."""
        if self._number >= self._most:
            raise TooManyOperations(f"{self._most} calls wait for users on this server, which is the limit.")
        self._number += 1
        try:
            yield
        finally:
            self._number -= 1


class Operations:
    """The operations of one session, for its tools."""

    def __init__(
        self, resources: Resources, session_id: SessionId, start: StartInBackground, waits: WaitingCalls | None = None
    ) -> None:
        self._resources = resources
        self._session_id = session_id
        self._start = start
        self._waits = waits or WaitingCalls(1)
        self._running: dict[str, OperationId] = {}
        self._reported_at: dict[str, float] = {}

    @property
    def limit(self) -> float:
        """Seconds that an operation may take."""
        return self._resources.settings.operation_timeout

    async def find(self, tool_call_id: str) -> Operation | None:
        """Returns the operation that an earlier attempt registered for this call, or None."""
        async with self._resources.database.connection() as c:
            return await operations.find_by_call(c, self._session_id, tool_call_id)

    async def register(self, work: ToolWork, limit: float = ACCEPT_LIMIT) -> Operation:
        """Stores a new operation, or returns the one that this tool call has already.

        A service must accept it within `limit` seconds. Raises OperationNotFound if the session is gone,
        TooManyOperations, and Unavailable.
        """
        settings = self._resources.settings
        most = settings.max_operations if work.asks is None else settings.max_questions
        async with self._resources.database.transaction() as c:
            await operations.check_room(c, self._session_id, work, most)
            return await operations.register(c, self._session_id, work, limit=limit)

    async def register_remote(
        self, work: ToolWork, task: RemoteTask, *, ends_with_us: bool, due_in: float
    ) -> StartedOperation:
        """Stores a new operation whose work is a task at a tool server, or returns the one that the call has already.

        If this process carries out the operation, the server takes it over. This executor polls the task while it
        lives, the first time in `due_in` seconds; afterwards another executor does. With `ends_with_us`, the task ends
        with this process.
        Raises as `register`.
        """
        me, most = self._resources.me, self._resources.settings.max_operations
        work = replace(work, runner=me if ends_with_us else None)
        async with self._resources.database.transaction() as c:
            await operations.check_room(c, self._session_id, work, most)
            operation = await operations.find_by_call(c, self._session_id, work.tool_call_id)
            if operation is None:
                operation = await operations.register(c, self._session_id, work, limit=ACCEPT_LIMIT)
            elif operation.work.runner != me or not await operations.hand_over_to_server(c, operation, work):
                return StartedOperation(operation, already_started=True)
            await remote_tasks.add(c, operation.task_id, task, me, due_in=due_in)
        return StartedOperation(operation, already_started=False)

    async def begin_run(self, work: ToolWork, user: str, *, most: int, due_in: float) -> Operation:
        """Stores a new operation whose work is a run at the agent platform, before the platform is asked.

        This executor asks for the run in `due_in` seconds for the first time. Raises TooManyRuns if the session has
        begun `most` runs, and otherwise as `register`.
        """
        async with self._resources.database.transaction() as c:
            await operations.check_room(c, self._session_id, work, self._resources.settings.max_operations)
            if await remote_tasks.count_begun(c, self._session_id, AGENT_RUN) >= most:
                raise TooManyRuns(f"This conversation has begun {most} runs of agents, which is the limit.")
            operation = await operations.register(c, self._session_id, work, limit=ACCEPT_LIMIT)
            task = RemoteTask(AGENT_PLATFORM, work.graph_id or "", f"{remote_tasks.UNNAMED}{operation.id}", user)
            await remote_tasks.add(c, operation.task_id, task, self._resources.me, due_in=due_in)
        return operation

    async def begin_schedule(self, work: ToolWork, *, most: int) -> Operation:
        """Stores a new operation that makes a schedule at the agent platform.

        Raises TooManySchedules if the session has made `most` schedules, and otherwise as `register`.
        """
        async with self._resources.database.transaction() as c:
            await operations.check_room(c, self._session_id, work, self._resources.settings.max_operations)
            if await remote_tasks.count_begun(c, self._session_id, AGENT_SCHEDULE) >= most:
                raise TooManySchedules(f"This conversation has made {most} schedules, which is the limit.")
            return await operations.register(c, self._session_id, work, limit=ACCEPT_LIMIT)

    async def name_remote(self, operation: Operation, remote_id: str, *, due_in: float) -> None:
        """Stores the id that the platform gave to a run, which is asked for in `due_in` seconds. Raises Unavailable."""
        async with self._resources.database.connection() as c:
            await remote_tasks.name_task(c, operation.task_id, remote_id, due_in=due_in)

    async def postpone_remote(self, operation: Operation, *, due_in: float) -> None:
        """Makes a remote task of this executor due for its next poll in `due_in` seconds. Raises Unavailable."""
        async with self._resources.database.connection() as c:
            await remote_tasks.postpone(c, operation.task_id, self._resources.me, due_in=due_in)

    async def remote_of(self, operation: Operation) -> RemoteTask | None:
        """Returns the remote task that does the operation's work, or None if it has ended. Raises Unavailable."""
        async with self._resources.database.connection() as c:
            return await remote_tasks.find(c, operation.task_id)

    async def settle_remote(self, operation: Operation, outcome: Outcome) -> Json | None:
        """Ends an operation whose task has ended within its turn, as `settle` does."""
        output = await self.settle(operation, outcome)
        async with self._resources.database.connection() as c:
            await remote_tasks.forget(c, operation.task_id)
        return output

    async def leave_remote(self, operation: Operation, *, due_in: float) -> None:
        """Has executors poll a task from now on, instead of its turn. The first poll comes within `due_in` seconds.

        Raises as `mark_opened`.
        """
        await self.mark_opened(operation)
        with suppress(Unavailable):  # it is due a little later
            async with self._resources.database.connection() as c:
                await remote_tasks.bring_forward(c, operation.task_id, self._resources.me, due_in=due_in)

    async def ask(self, work: ToolWork) -> StartedOperation:
        """Asks the user what `work` asks, once for each call. The answer comes later, within QUESTION_DAYS.

        Raises OperationNotFound if the session is gone, TooManyOperations, and Unavailable.
        """
        known = await self.find(work.tool_call_id)
        operation = known or await self.register(work)
        if operation.pending and not operation.opened:
            await self.mark_opened(operation)
        return StartedOperation(operation, already_started=known is not None)

    async def ask_now(self, work: ToolWork, limit: float, show: Callable[[Operation], None]) -> Json:
        """Asks the user what `work` asks, and waits up to `limit` seconds. Returns the answer as a tool response.

        It is `dismissed` if the user writes something else first or this process stops, and an error if the time is
        over. Calls `show` when the question is stored. If this is cancelled, the question is over.
        Raises OperationNotFound if the session is gone, TooManyOperations, and Unavailable.
        """
        with self._waits.one():
            asked = replace(work, tool_call_id=f"{work.tool_call_id}_{secrets.token_hex(4)}", runner=self._resources.me)
            operation = await self.register(asked, limit)
            answer: Json | None = None
            try:
                self._announce_started(operation)
                show(operation)
                answer = await self._answer_to(operation, time.monotonic() + limit)
                return answer
            finally:
                if answer is None:
                    self._start(self._store(asked.tool_call_id, DISMISSED))

    async def _answer_to(self, operation: Operation, until: float) -> Json:
        while True:
            with suppress(Unavailable):  # the next check comes soon
                async with self._resources.database.connection() as c:
                    seen = await questions.find_live(c, operation.task_id)
                if seen is None or not seen[0].pending:
                    return CANCELLED if seen is None else seen[0].result or CANCELLED
                gone_on = seen[1] or self._waits.over
                if gone_on or time.monotonic() >= until:
                    with suppress(AlreadyCompleted, OperationGone, OperationNotFound):
                        outcome = DISMISSED if gone_on else EXPIRED
                        await complete_operation(self._resources, operation.id, outcome, by_user=True)
                    continue
            await asyncio.sleep(LOOK_EVERY)

    async def settle(self, operation: Operation, outcome: Outcome) -> Json | None:
        """Ends an operation that was answered at once. Returns the tool's output.

        Returns None if another outcome was faster, or if the service had accepted the operation before: the outcome
        then reaches the conversation later, by a continuation. Raises OperationNotFound
        and Unavailable.
        """
        return await settle_operation(self._resources, operation, outcome)

    async def fail(self, tool_call_id: str, outcome: Outcome) -> Operation | None:
        """Ends the operation of a call whose tool failed, unless a service or this process works on it already.

        Returns the operation as it is then, or None if the call began none. Raises Unavailable.
        """
        operation = await self.find(tool_call_id)
        if operation is None or not operation.pending or operation.opened or operation.work.runner is not None:
            return operation
        with suppress(OperationNotFound):
            await self.settle(operation, outcome)
        return await self.find(tool_call_id)

    async def mark_opened(self, operation: Operation) -> None:
        """Stores that a service has accepted the operation, and begins its stream.

        Raises Unavailable if Postgres is unavailable; the call must then be repeated.
        """
        settings = self._resources.settings
        limit = settings.operation_timeout if operation.work.asks is None else settings.question_days * 86_400
        key = stream_key(operation.session_id, operation.task_id)
        writer = self._resources.flusher.writer(key, fence_of(operation.number, 1), create=True)
        try:
            await writer.append(Start(f"{ANSWER_ID}{operation.task_id}"), StartStep(), call_chunk(operation.work.call))
            checkpoint = await writer.drain()
            await self._resources.streams.refresh([key], longer=limit)
        except (AttemptEnded, Unavailable) as error:  # the outcome will begin the stream, or has come already
            logger.warning("stream of an operation was not started", extra={"error": type(error).__name__})
            checkpoint = BEGINNING
        await self._store_opened(operation, str(checkpoint), limit)

    async def run_in_background(self, work: ToolWork, run: Callable[[], Awaitable[Any]]) -> StartedOperation:
        """Starts the work in this process, beside its turns.

        If too much work runs already, the operation is returned with a result that says so. If the process dies,
        another executor's sweeper ends the operation as interrupted; if the call is cancelled or fails before the work
        has begun, this process does so. Raises OperationNotFound and Unavailable.
        """
        known = await self.find(work.tool_call_id)
        if known is not None:
            return StartedOperation(known, already_started=True)
        limit, started = self._resources.settings.operation_timeout, False
        try:
            operation = await self.register(replace(work, runner=self._resources.me), limit)
            if not self._start(self._carry_out(operation, run)):
                operation = replace(operation, result=await self.settle(operation, BUSY))
            started = True
        finally:
            if not started:  # cancelled, or the reply of Postgres was lost: the operation may be stored nevertheless
                self._start(self._end_unstarted(work.tool_call_id))
        if operation.result is not None:
            return StartedOperation(operation, already_started=False)
        self._running[work.tool_call_id] = operation.id
        with suppress(Unavailable):  # the work runs, and its outcome is stored in any case
            await self.mark_opened(operation)
        return StartedOperation(operation, already_started=False)

    async def report_progress(self, tool_call_id: str, progress: Progress) -> None:
        """Shows the progress of work that runs in this process, at most every REPORT_EVERY seconds.

        A report that cannot be stored is dropped, since another one follows.
        """
        now, operation_id = time.monotonic(), self._running.get(tool_call_id)
        if operation_id is None or now - self._reported_at.get(tool_call_id, -REPORT_EVERY) < REPORT_EVERY:
            return
        self._reported_at[tool_call_id] = now
        with suppress(OperationGone, OperationNotFound, Unavailable):
            await tell_progress(self._resources, operation_id, progress)

    async def _carry_out(self, operation: Operation, run: Callable[[], Awaitable[Any]]) -> None:
        job = asyncio.ensure_future(run())
        try:
            async with asyncio.timeout(self._resources.settings.operation_timeout):
                while not (await asyncio.wait({job}, timeout=CHECK_EVERY))[0]:
                    if not await self._is_pending(operation):
                        return  # cancelled, or deleted with its session
                response = job.result()
                if isinstance(response, OperationAccepted):
                    return  # a tool server goes on with it
                outcome = outcome_of(response)
        except TimeoutError:
            outcome = Outcome(False, {"error_type": "timeout"}, "The tool took too long.")
        except Exception:  # the boundary around tools: any error becomes the outcome
            logger.exception("tool failed", extra={"tool": operation.work.tool_name})
            outcome = Outcome(False, {"error_type": "tool_failed"}, "The tool failed.")
        finally:
            job.cancel()
        await self._store(operation.work.tool_call_id, outcome)

    async def _end_unstarted(self, tool_call_id: str) -> None:
        """Ends an operation that this process may have stored, and whose work it has not begun.

        The conversation continues with the outcome, because a later attempt at the turn may believe that the work runs.
        """
        await self._store(tool_call_id, ABANDONED)

    async def _store(self, tool_call_id: str, outcome: Outcome) -> None:
        """Gives an outcome to the operation of a call that this process carries out. Tries for some minutes."""
        for _ in range(STORE_TRIES):
            try:
                operation = await self.find(tool_call_id)
                if operation is None or operation.work.runner != self._resources.me:
                    return
                with suppress(AlreadyCompleted, OperationGone, OperationNotFound):
                    done = await complete_operation(
                        self._resources, operation.id, outcome, by_user=operation.work.asks is not None
                    )
                    if done.next_turn is not None:
                        await self._resources.outbox.publish(done.next_turn)
            except Unavailable:
                await asyncio.sleep(STORE_PAUSE)
            else:
                return
        logger.error("outcome was not stored, the operation ends at its deadline", extra={"call": tool_call_id})

    async def _is_pending(self, operation: Operation) -> bool:
        try:
            async with self._resources.database.connection() as c:
                return (await operations.get_operation(c, operation.id)).pending
        except OperationNotFound:
            return False
        except Unavailable:  # the next check comes soon
            return True

    async def _store_opened(self, operation: Operation, checkpoint: str, limit: float) -> None:
        async with self._resources.database.connection() as c:
            is_pending = await operations.open_operation(c, operation, checkpoint, limit=limit)
        if is_pending:  # else its end was announced already
            self._announce_started(operation)

    def _announce_started(self, operation: Operation) -> None:
        self._resources.feed.publish(
            Hint.OPERATION_STARTED,
            operation.session_id,
            operation.user_id,
            task_id=operation.task_id,
            operation_id=operation.id,
            tool_name=operation.work.tool_name,
            **({} if operation.work.asks is None else {"asks": operation.work.asks.kind.value}),
        )

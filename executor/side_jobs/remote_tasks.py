"""Side job that asks servers for the tasks that do the work of operations, and has them stopped.

The servers are those of MCP tools, and the agent platform, whose tasks are runs of agents.

The executor that began a task asks for it, since a server of 2025-11-25 may tell nothing to another session; when that
executor has died, any other one does. The outcome goes the way of all outcomes. An operation that has ended in another
way (cancelled, deleted, overdue) has its server told once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from backend.chat.flows.complete import complete_operation, tell_progress
from backend.chat.models import Task
from backend.chat.outcomes import Operation, Outcome
from backend.chat.resources import Resources
from backend.chat.store import operations, remote_tasks, tasks
from backend.chat.store.remote_tasks import KEPT, ClaimedTask
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound, TaskNotFound, Unavailable
from backend.failpoints import reach
from backend.ids import TaskId
from backend.jitter import jitter
from backend.supervised import end_job
from executor.operations import Operations, WaitingCalls
from executor.tools.context import ToolContext
from executor.tools.remote_work import StillRunning, WorkServer
from executor.turns.context import ExecutorContext
from executor.turns.output_files import OutputFiles

AT_ONCE, AT_ONCE_OF_ONE, MOST_WAITING = 32, 8, 64
"""Tasks for which one executor asks at the same time, of all servers and of one. Those that wait for input, mostly of
users, are counted by themselves.
"""
LOOK_EVERY, CALM_LOOK_EVERY, CALM_AFTER = 1.0, 5.0, 120.0
"""Seconds between two searches for due tasks; the same if none was due for CALM_AFTER seconds. Each task is due once
within CALM_AFTER."""
RETRY_IN = 10.0
"""Seconds after which a server that was not reached is asked again."""
MOST_UNSTOPPED = 10_000
"""The most tasks whose server could not be told to stop, and that are remembered with the time of the first try."""
logger = logging.getLogger(__name__)


class RemoteTasks:
    """Asks tool servers for the outcomes of remote tasks, over the connections of one executor."""

    def __init__(self, resources: Resources, context: ExecutorContext) -> None:
        self._resources = resources
        self._context = context
        self._servers = {one.name: one for one in context.work_servers()}
        self._asked: dict[TaskId, str] = {}
        """The servers of the tasks whose outcome is being asked for at this moment."""
        self._waiting: set[TaskId] = set()
        """The tasks that wait for input from the user."""
        self._unstopped: dict[TaskId, float] = {}
        """The time of the first failed try to stop each task, by the clock of the event loop."""
        self._waits = WaitingCalls(MOST_WAITING)
        """The questions of these tasks, which hold no slots of turns. If this process stops, another one asks them."""

    async def run(self) -> None:
        """Asks until cancelled."""
        if not self._servers:
            await asyncio.Event().wait()
        clock = asyncio.get_running_loop().time
        claimed_at = clock()
        async with asyncio.TaskGroup() as group:
            while True:
                calm = not self._asked and clock() - claimed_at > CALM_AFTER
                await asyncio.sleep(jitter(CALM_LOOK_EVERY if calm else LOOK_EVERY, 0.8, 1.2))
                with suppress(Unavailable):  # the next check comes soon
                    for claimed in await self._claim():
                        claimed_at = clock()
                        self._asked[claimed.task_id] = claimed.remote.server
                        group.create_task(self._ask_for(claimed))

    async def _claim(self) -> list[ClaimedTask]:
        busy = Counter(server for task_id, server in self._asked.items() if task_id not in self._waiting)
        rooms = {name: AT_ONCE_OF_ONE - busy[name] for name, one in self._servers.items() if one.can_tell}
        rooms = {name: room for name, room in rooms.items() if room > 0}
        left = AT_ONCE - busy.total()
        if not rooms or left <= 0:
            return []
        async with self._resources.database.connection() as c:
            return await remote_tasks.claim_due(c, self._resources.me, rooms, self._asked.keys(), most=left)

    async def _ask_for(self, claimed: ClaimedTask) -> None:
        try:
            found = await self._find(claimed)
            server = self._servers[claimed.remote.server]
            pause = await (self._stop(claimed, server) if found is None else self._look(claimed, server, *found))
            async with self._resources.database.connection() as c:
                if pause is None:
                    await remote_tasks.forget(c, claimed.task_id)
                else:
                    due_in = jitter(pause, 0.9, 1.1)
                    await remote_tasks.postpone(
                        c, claimed.task_id, self._resources.me, due_in=due_in, stopping=found is None
                    )
        except Unavailable:  # it is due still
            logger.warning("a task of a tool server is asked for later", extra={"task_id": claimed.task_id})
        except Exception:  # the boundary of one task
            logger.exception("a task of a tool server was not asked for", extra={"task_id": claimed.task_id})
            await asyncio.sleep(RETRY_IN)
        finally:
            del self._asked[claimed.task_id]

    async def _find(self, claimed: ClaimedTask) -> tuple[Operation, Task] | None:
        """Returns the operation if it is pending, else None."""
        async with self._resources.database.connection() as c:
            operation = (await operations.operations_of_tasks(c, [claimed.task_id])).get(claimed.task_id)
            if operation is None or not operation.pending:
                return None
            with suppress(TaskNotFound):
                return operation, await tasks.get_task(c, claimed.task_id)
        return None

    async def _look(self, claimed: ClaimedTask, server: WorkServer, operation: Operation, task: Task) -> float | None:
        """Asks for a task. Returns the seconds until the next poll, or None if the operation has its outcome."""
        context = self._context_of(operation, task)
        if not operation.opened:  # its turn has ended before
            await context.operations.mark_opened(operation)
        notes = list(operation.work.notes)
        found = await server.look(claimed.remote, operation, context)
        if found is None:
            return RETRY_IN
        if isinstance(found, StillRunning) and found.wants is not None:
            answered = await self._answered(claimed, server, found, operation, context, notes)
            if len(notes) > len(operation.work.notes):
                await self._keep(claimed, notes)
            if answered is None:
                return found.pause
            found = answered
        if isinstance(found, Outcome):
            reach("after_remote_task")
            await self._complete(operation, found)
            return None
        await self._show(operation, found)
        return found.pause

    async def _answered(
        self,
        claimed: ClaimedTask,
        server: WorkServer,
        state: StillRunning,
        operation: Operation,
        context: ToolContext,
        notes: list[str],
    ) -> Outcome | None:
        """Gives the server what its task waits for, from the user if need be. Returns an outcome if the task has ended.

        Returns None otherwise, and as soon as the operation has ended. Adds to `notes` as `WorkServer.answer` does.
        """
        if len(self._waiting) >= MOST_WAITING:
            return None
        self._waiting.add(claimed.task_id)
        job = asyncio.ensure_future(server.answer(claimed.remote, state.wants, operation, context, notes))
        try:
            while not (await asyncio.wait({job}, timeout=LOOK_EVERY))[0]:
                if await self._find(claimed) is None:
                    return None
            return job.result()
        finally:
            self._waiting.discard(claimed.task_id)
            await end_job(job)

    async def _keep(self, claimed: ClaimedTask, notes: list[str]) -> None:
        """Stores the notes for whichever executor finds the outcome."""
        async with self._resources.database.connection() as c:
            await remote_tasks.keep_notes(c, claimed.task_id, notes)

    def _context_of(self, operation: Operation, task: Task) -> ToolContext:
        context = self._context
        return ToolContext(
            operation.session_id,
            operation.work.turn,
            operation.work.tool_call_id,
            operation.user_id,
            self._resources.database,
            Operations(self._resources, operation.session_id, context.start_work, self._waits),
            can_ask=context.can_ask(task),
            keep_file=OutputFiles(self._resources, operation.session_id, task.id).keep,
        )

    async def _complete(self, operation: Operation, outcome: Outcome) -> None:
        with suppress(AlreadyCompleted, OperationGone, OperationNotFound):
            done = await complete_operation(self._resources, operation.id, outcome)
            if done.next_turn is not None:
                await self._resources.outbox.publish(done.next_turn)

    async def _show(self, operation: Operation, state: StillRunning) -> None:
        progress = state.progress
        if progress is not None and progress != operation.progress:
            with suppress(OperationGone, OperationNotFound):
                await tell_progress(self._resources, operation.id, progress)

    async def _stop(self, claimed: ClaimedTask, server: WorkServer) -> float | None:
        """Has the server stop a task whose operation has ended. Returns the seconds until the next try, or None if
        it was told or has refused for KEPT seconds.
        """
        if not await server.stop(claimed.remote):
            now = asyncio.get_running_loop().time()
            if now - self._unstopped.setdefault(claimed.task_id, now) < KEPT:
                if len(self._unstopped) > MOST_UNSTOPPED:
                    del self._unstopped[next(iter(self._unstopped))]
                return RETRY_IN
        self._unstopped.pop(claimed.task_id, None)
        return None

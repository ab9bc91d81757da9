"""The runner of turns: claims the task of a delivered turn, and runs attempts until it has ended."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractContextManager

from backend.chat.flows.finish import end_task, end_unowned
from backend.chat.flows.steering import newly_taken_in_by
from backend.chat.models import Task, TaskError, TaskKind, TaskStatus, Turn
from backend.chat.protocol.chunks_from_rows import terminal_chunks
from backend.chat.resources import Resources
from backend.chat.store import tasks
from backend.chat.streams.terminal import ensure_terminal
from backend.errors import AttemptEnded, Fenced, StreamGone, TaskNotFound, Unavailable
from backend.failpoints import reach
from backend.ids import MAX_ATTEMPTS, ExecutorId, TaskId, new_executor_id
from backend.tracing import Attributes, Span, Traces, attempt_span
from executor.turns.attempt import INTERNAL_ERROR, TOO_LONG, Attempt, HandedBack, time_left
from executor.turns.context import ExecutorContext
from executor.turns.ownership import is_dead, session_lock, wait_for_death
from executor.turns.processes import TurnProcesses

MAX_RESTARTS = 5
"""Attempts for one delivery, each started because Redis lost the stream of the one before."""
FENCED_TRIES, FENCED_PAUSE = 3, 0.5
"""Attempts that may be fenced although the claim stands, and seconds before the second one; later pauses double."""
DEATHS_BEFORE_CHILD = 2
"""Deaths of a turn's owners after which the turn runs in a child process."""
logger = logging.getLogger(__name__)


class TurnRunner:
    """The runner of one process; `running` holds its attempts by task.

    `processes` runs turns that seem to kill their process. It is None in a child process.
    """

    def __init__(self, resources: Resources, context: ExecutorContext, processes: TurnProcesses | None) -> None:
        self._resources = resources
        self._context = context
        self._processes = processes
        self.running: dict[TaskId, Attempt] = {}
        context.metrics.watch_running(lambda: len(self.running))

    async def run(self, turn: Turn) -> None:
        """Does what the turn needs in the present state of its task. On return the turn may be acked.

        Raises AttemptEnded or Unavailable if the turn must be delivered again, here or elsewhere.
        """
        if self._resources.liveness.pulse.late:
            raise HandedBack  # others take this executor for dead and would take the turn over, or Redis is down
        with self._resources.claiming.noted(turn.task_id):
            async with self._resources.database.connection() as c:
                claimed = await tasks.claim_new_task(c, turn.task_id, self._resources.me)
            if claimed is None:
                claimed = await self._claim_redelivered(turn)
            if claimed is not None:
                await self._run_attempts(claimed)

    async def _claim_redelivered(self, turn: Turn) -> Task | None:
        """Claims the task of a turn that is not new. Returns None if there is nothing to run here now."""
        try:
            async with self._resources.database.connection() as c:
                task = await tasks.get_task(c, turn.task_id)
        except TaskNotFound:
            logger.warning("turn of an unknown task")
            return None
        if task.status.ended:
            await self._complete_end(task)
            return None
        if task.id in self.running or (task.owner == self._resources.me and self._resources.claiming.on(task.id) > 1):
            return None  # another delivery of the turn runs it here, or is about to
        if (
            task.owner is not None
            and task.owner != self._resources.me
            and not await is_dead(self._resources, task.owner)
        ):
            self._context.start_side_job(self._watch(turn, task.owner))  # a side job, so that it holds no slot
            return None
        if (
            self._processes is not None
            and DEATHS_BEFORE_CHILD <= self._deaths(task) < self._resources.settings.max_crashes
        ):
            return await self._run_in_child(turn, task, self._processes)
        return await self._claim(task)

    def _deaths(self, seen: Task) -> int:
        """Counts the owners that died since the task's last step, with the present one if that is another executor."""
        return seen.crashes + (seen.owner not in (None, self._resources.me))

    async def _run_in_child(self, turn: Turn, seen: Task, processes: TurnProcesses) -> Task | None:
        """Lets a child process claim the task and run it. If the child dies too, decides again by the task's state.

        Returns the claim if this process must then continue the task. Raises HandedBack if the child handed it back.
        """
        if seen.owner is not None:
            async with self._resources.database.connection() as c:
                if not await tasks.release_claim(c, seen.id, seen.owner, crashed=True):
                    return None
        child = new_executor_id()
        if await processes.run(turn, child):
            return None
        async with self._resources.database.connection() as c:
            died = await tasks.release_claim(c, seen.id, child, crashed=True)
        if not died:
            raise HandedBack
        return await self._claim_redelivered(turn)

    async def _watch(self, turn: Turn, owner: ExecutorId) -> None:
        """Publishes the turn if its owner proves to be dead.

        A turn can be delivered again while its owner seems alive: the owner was killed just now, or lost the broker.
        """
        if not await wait_for_death(self._resources, owner):
            return
        async with self._resources.database.connection() as c:
            released = await tasks.release_claim(c, turn.task_id, owner, crashed=True, in_hand=False)
        if released:
            await self._resources.outbox.publish(turn)

    async def _claim(self, seen: Task) -> Task | None:
        """Claims the next attempt at a task. Returns None if the task is no longer as it was seen."""
        async with self._resources.database.connection() as c:
            return await tasks.claim_task(
                c, seen.id, self._resources.me, seen_owner=seen.owner, seen_attempt=seen.attempt
            )

    async def _run_attempts(self, claimed: Task | None) -> None:
        """Runs an attempt, and another one each time Redis loses the stream. Raises HandedBack after MAX_RESTARTS."""
        fenced = 0
        for _ in range(MAX_RESTARTS):
            if claimed is None:
                return None
            try:
                return await self._run_attempt(claimed)
            except Fenced:
                fenced += 1
                claimed = await self._claim_after_fence(claimed, fenced)
                continue
            except StreamGone:
                logger.warning("stream was lost, the turn starts again", extra={"attempt": claimed.attempt})
            except (AttemptEnded, Unavailable):
                raise
            except Exception:  # the boundary of a turn: an internal error fails the turn, and is not retried
                logger.exception("turn failed because of an internal error")
                return await self._give_up(claimed, INTERNAL_ERROR)
            claimed = await self._claim(claimed)
        raise HandedBack

    async def _claim_after_fence(self, claimed: Task, fenced: int) -> Task | None:
        """Claims the next attempt after a pause if a fence stopped this one although its claim stands.

        That happens if the stream or the messages hold something of a later attempt, as after a restore of one store.
        Fails the task the third time. Returns None then, and if another executor has taken the task over.
        """
        async with self._resources.database.connection() as c:
            found = await tasks.find_tasks(c, [claimed.id])
        if not found or (found[0].attempt, found[0].owner) != (claimed.attempt, claimed.owner):
            logger.warning("turn was taken over by another executor", extra={"attempt": claimed.attempt})
            return None
        if fenced >= FENCED_TRIES:
            logger.error("turn was fenced again and again although its claim stands", extra={"attempts": fenced})
            await self._give_up(found[0], INTERNAL_ERROR)
            return None
        logger.warning("turn was fenced although its claim stands", extra={"attempt": claimed.attempt})
        await asyncio.sleep(FENCED_PAUSE * 2 ** (fenced - 1))
        return await self._claim(found[0])

    async def _give_up(self, claimed: Task, error: TaskError) -> None:
        """Fails a task that no attempt can end; only committed steps are kept."""
        ending = await end_task(self._resources, claimed, status=TaskStatus.FAILED, error=error)
        self._context.metrics.count_end(ending.task)
        await self._complete_end(ending.task)

    async def _run_attempt(self, claimed: Task) -> None:
        reach("after_claim")
        if claimed.attempt >= MAX_ATTEMPTS or not time_left(claimed, self._resources.settings.turn_timeout):
            return await self._give_up(claimed, TOO_LONG)
        attempt = self.running[claimed.id] = Attempt(self._resources, self._context, claimed)
        logger.info("turn runs", extra={"attempt": claimed.attempt})
        self._context.metrics.count_attempt(claimed)
        try:
            with _span_of(self._resources.traces, claimed) as span:
                async with session_lock(self._resources, claimed):
                    ending = await attempt.run()
                span.note({"copilot.status": ending.task.status.value})
                if ending.task.error is not None:
                    span.fail(ending.task.error.code)
        finally:
            del self.running[claimed.id]
        logger.info("turn ended", extra={"status": ending.task.status.value})
        self._context.metrics.count_end(ending.task)
        if ending.next_turn is not None:
            await self._resources.outbox.publish(ending.next_turn)
        return None

    async def fail(self, task_id: TaskId, error: TaskError) -> None:
        """Fails a task, unless a living executor owns it or it has ended.

        Raises AttemptEnded or Unavailable if the call must be repeated.
        """
        with self._resources.claiming.noted(task_id):
            async with self._resources.database.connection() as c:
                found = await tasks.find_tasks(c, [task_id])
            for task in found:
                if task.status.ended or (task.owner is not None and not await is_dead(self._resources, task.owner)):
                    continue
                if task.attempt == 0:
                    await end_unowned(self._resources, task, TaskStatus.FAILED, error)
                elif (claimed := await self._claim(task)) is not None:
                    await self._give_up(claimed, error)

    async def _complete_end(self, task: Task) -> None:
        """Completes the end of a task whose executor may have died before the terminal chunks, or the next turn."""
        async with self._resources.database.connection() as c:
            taken = await newly_taken_in_by(c, task)
        chunks = terminal_chunks(task, step_open=False, taken=taken)
        try:
            await ensure_terminal(self._resources.streams, self._resources.flusher, task, chunks)
        except (AttemptEnded, Unavailable) as lost:  # readers take the end from the task's row
            logger.warning("terminal chunks were not written", extra={"error": type(lost).__name__})
        async with self._resources.database.connection() as c:
            active = await tasks.find_active_task(c, task.session_id)
        if active is not None and not active.status.ended and active.owner is None:
            await self._resources.outbox.publish(Turn(active.id, active.session_id))

    async def release(self, task_id: TaskId, *, in_hand: bool) -> None:
        """Releases this process's claim on a task, unless work on it goes on here. Counts no crash.

        `in_hand`: the caller holds the turn's delivery and settles it. Otherwise it publishes the turn afterwards; if
        it dies before that, the sweeper does so without further delay.
        """
        async with self._resources.database.connection() as c:
            if not self._resources.claiming.on(task_id):
                await tasks.release_claim(c, task_id, self._resources.me, in_hand=in_hand)

    async def release_all(self) -> None:
        """Releases all claims of this process and publishes their turns. Call it when the worker has stopped."""
        async with self._resources.database.connection() as c:
            released = await tasks.release_claims(c, self._resources.me, crashed=False)
        for turn in released:
            await self._resources.outbox.publish(turn)

    def __contains__(self, attempt: Attempt) -> bool:
        """Returns True if this attempt still runs."""
        return self.running.get(attempt.holder.task_id) is attempt


def _span_of(traces: Traces | None, claimed: Task) -> AbstractContextManager[Span]:
    about: Attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.conversation.id": claimed.session_id,
        "copilot.task_id": claimed.id,
        "copilot.attempt": claimed.attempt,
        "copilot.executor_id": claimed.owner or "",
        "copilot.crashes": claimed.crashes,
    }
    earlier = claimed.attempt - 1 if claimed.attempt > 1 and claimed.kind is TaskKind.TURN else None
    return attempt_span(traces, claimed.id, claimed.attempt, earlier, about)

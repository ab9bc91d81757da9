"""What an executor does with one turn that the queue hands it."""

from __future__ import annotations

import logging

from backend.chat import tasks
from backend.chat.cancelling import end_unowned
from backend.chat.endings import ensure_terminal
from backend.chat.flows import House, end_task
from backend.chat.models import Task, TaskError, TaskStatus, Turn
from backend.chat.snapshot import terminal_chunks
from backend.errors import AttemptEnded, Fenced, StreamGone, TaskNotFound, Unavailable
from backend.failpoints import reach
from backend.ids import MAX_ATTEMPTS, ExecutorId, TaskId, new_executor_id
from executor.attempt import OUR_FAULT, TOO_LONG, Attempt, HandedBack, time_left
from executor.children import Children
from executor.crew import Crew
from executor.ownership import dies, is_dead, session_lock

MAX_RESTARTS = 5
APART_FROM = 2
"""Deaths of its owner after which a turn runs in a process of its own."""
logger = logging.getLogger(__name__)


class Turns:
    """Runs turns; `running` are the attempts under way in this process. `children` run those that seem to kill their
    process; a child has none of its own."""

    def __init__(self, house: House, crew: Crew, children: Children | None) -> None:
        self._house = house
        self._crew = crew
        self._children = children
        self.running: dict[TaskId, Attempt] = {}
        crew.metrics.watch_running(lambda: len(self.running))

    async def run(self, turn: Turn) -> None:
        """Does what the turn needs, whatever state its task is in; on return the turn may be acked.

        Raises AttemptEnded or Unavailable when the turn must come again, here or elsewhere.
        """
        if self._house.liveness.pulse.late:
            raise HandedBack  # others take us for dead: it would be taken from us, or, without Redis, get nowhere
        async with self._house.database.connection() as c:
            claimed = await tasks.claim_new_task(c, turn.task_id, self._house.me)
        if claimed is None:
            claimed = await self._look(turn)
        if claimed is not None:
            await self._work(claimed)

    async def _look(self, turn: Turn) -> Task | None:
        """A turn that came before, or for nothing: claims it if that can be done now."""
        try:
            async with self._house.database.connection() as c:
                task = await tasks.get_task(c, turn.task_id)
        except TaskNotFound:
            logger.warning("turn of an unknown task")
            return None
        if task.status.ended:
            await self._end_again(task)
            return None
        if task.id in self.running:
            return None
        if task.owner is not None and task.owner != self._house.me and not await is_dead(self._house, task.owner):
            self._crew.start(self._watch(turn, task.owner))  # so that a copy that waits holds no slot
            return None
        if self._children is not None and APART_FROM <= self._deaths(task) < self._house.settings.max_crashes:
            return await self._run_apart(turn, task, self._children)
        return await self._claim(task)

    def _deaths(self, seen: Task) -> int:
        """How often its owner has died since its last step, when it is claimed now."""
        return seen.crashes + (seen.owner not in (None, self._house.me))

    async def _run_apart(self, turn: Turn, seen: Task, children: Children) -> Task | None:
        """A child process claims the task and runs it. The claim is ours again only to end it, when that died too."""
        if seen.owner is not None:
            async with self._house.database.connection() as c:
                if not await tasks.release_claim(c, seen.id, seen.owner, crashed=True):
                    return None
        child = new_executor_id()
        if await children.run(turn, child):
            return None
        async with self._house.database.connection() as c:
            died = await tasks.release_claim(c, seen.id, child, crashed=True)
        if not died:
            raise HandedBack
        return await self._look(turn)

    async def _watch(self, turn: Turn, owner: ExecutorId) -> None:
        """A copy came although its owner seems to live: it was just killed, or lost its broker for a moment."""
        if not await dies(self._house, owner):
            return
        async with self._house.database.connection() as c:
            released = await tasks.release_claim(c, turn.task_id, owner, crashed=True, in_hand=False)
        if released:
            await self._house.outbox.publish(turn)

    async def _claim(self, seen: Task) -> Task | None:
        """The next attempt at a task as it was seen; None when somebody else was faster."""
        async with self._house.database.connection() as c:
            return await tasks.claim_task(c, seen.id, self._house.me, seen_owner=seen.owner, seen_attempt=seen.attempt)

    async def _work(self, claimed: Task | None) -> None:
        """One attempt, and another one each time Redis loses the stream under it."""
        for _ in range(MAX_RESTARTS):
            if claimed is None:
                return None
            try:
                return await self._attempt(claimed)
            except Fenced:
                return logger.warning("turn is another executor's by now", extra={"attempt": claimed.attempt})
            except StreamGone:
                logger.warning("stream lost, the turn starts again", extra={"attempt": claimed.attempt})
            except (AttemptEnded, Unavailable):
                raise
            except Exception:  # the boundary of a turn: a fault of ours ends it, visibly, and is not tried again
                logger.exception("turn failed by a fault of ours")
                return await self._give_up(claimed, OUR_FAULT)
            claimed = await self._claim(claimed)
        raise HandedBack

    async def _give_up(self, claimed: Task, error: TaskError) -> None:
        """Ends a task whose attempt cannot: nothing is kept but what was committed."""
        ending = await end_task(self._house, claimed, status=TaskStatus.FAILED, error=error)
        self._crew.metrics.count_end(ending.task)
        await self._end_again(ending.task)

    async def _attempt(self, claimed: Task) -> None:
        reach("after_claim")
        if claimed.attempt >= MAX_ATTEMPTS or not time_left(claimed, self._house.settings.turn_timeout):
            return await self._give_up(claimed, TOO_LONG)
        attempt = self.running[claimed.id] = Attempt(self._house, self._crew, claimed)
        logger.info("turn runs", extra={"attempt": claimed.attempt})
        try:
            async with session_lock(self._house, claimed):
                ending = await attempt.run()
        finally:
            del self.running[claimed.id]
        logger.info("turn ended", extra={"status": ending.task.status.value})
        self._crew.metrics.count_end(ending.task)
        if ending.next_turn is not None:
            await self._house.outbox.publish(ending.next_turn)
        return None

    async def fail(self, task_id: TaskId, error: TaskError) -> None:
        """Fails a task that nobody works on; nothing happens to one that is a living executor's, or has ended.

        Raises AttemptEnded or Unavailable when it must be tried again."""
        async with self._house.database.connection() as c:
            found = await tasks.find_tasks(c, [task_id])
        for task in found:
            if task.status.ended or (task.owner is not None and not await is_dead(self._house, task.owner)):
                continue
            if task.attempt == 0:
                await end_unowned(self._house, task, TaskStatus.FAILED, error)
            elif (claimed := await self._claim(task)) is not None:
                await self._give_up(claimed, error)

    async def _end_again(self, task: Task) -> None:
        """A turn that came again after its end: its stream's end and the next turn may not have been written."""
        chunks = terminal_chunks(task, step_open=False)
        try:
            await ensure_terminal(self._house.streams, self._house.flusher, task, chunks)
        except (AttemptEnded, Unavailable) as lost:  # readers take the end from the row
            logger.warning("terminal chunks not written", extra={"why": type(lost).__name__})
        async with self._house.database.connection() as c:
            active = await tasks.find_active_task(c, task.session_id)
        if active is not None and not active.status.ended and active.owner is None:
            await self._house.outbox.publish(Turn(active.id, active.session_id))

    async def let_go(self, task_id: TaskId) -> None:
        """Gives up this process's claim on a task that does not run here (any more); no crash is counted."""
        if task_id not in self.running:
            async with self._house.database.connection() as c:
                await tasks.release_claim(c, task_id, self._house.me)

    async def let_all_go(self) -> None:
        """The last act of a worker: what it still has goes back to the queue."""
        async with self._house.database.connection() as c:
            rest = await tasks.release_claims(c, self._house.me, crashed=False)
        for turn in rest:
            await self._house.outbox.publish(turn)

    def __contains__(self, attempt: Attempt) -> bool:
        """Whether this attempt is still under way."""
        return self.running.get(attempt.holder.task_id) is attempt

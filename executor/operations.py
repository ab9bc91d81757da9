"""How a tool hands its work to another service: the operation is registered, the service is asked, its answer noted.

register   in Postgres, before anybody is asked: no outcome can come too early
opened     the service has accepted: the operation's stream begins, and its outcome may take its time
settled    the service has answered at once: the answer is the tool's, and nothing continues
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from backend.chat import operations
from backend.chat.chunks import Start, StartStep
from backend.chat.completing import complete_operation, settle_operation
from backend.chat.feed import Hint
from backend.chat.flows import House
from backend.chat.keys import stream_key
from backend.chat.models import ANSWER_ID, Json
from backend.chat.outcomes import Operation, Outcome, ToolWork
from backend.chat.outputs import call_chunk
from backend.chat.tool_responses import ErrorResponse, ToolResponse
from backend.errors import AlreadyCompleted, AttemptEnded, OperationGone, OperationNotFound, Unavailable
from backend.ids import BEGINNING, SessionId, fence_of

UNTIL_ACCEPTED = 900.0
"""Seconds that an operation has which no service has accepted yet; asking one may take some minutes."""
TELLING_TRIES, TELLING_PAUSE = 120, 5.0
BUSY = Outcome(
    False,
    {"error_type": "service_unavailable"},
    "Too much long work goes on here at the moment; please try again later.",
)
LOOK_EVERY = 1.0
"""Seconds between two looks whether work that is carried out here is still wanted."""
Beside = Callable[[Coroutine[Any, Any, None]], bool]
logger = logging.getLogger(__name__)


class Operations:
    """What tools do with operations, in one session."""

    def __init__(self, house: House, session_id: SessionId, start: Beside) -> None:
        """`start` starts a job that outlives the turn, or says that there is no room for it."""
        self._house = house
        self._session_id = session_id
        self._start = start

    async def find(self, tool_call_id: str) -> Operation | None:
        """The operation that this call has begun before: by an attempt that died."""
        async with self._house.database.connection() as c:
            return await operations.find_by_call(c, self._session_id, tool_call_id)

    async def register(self, work: ToolWork, limit: float = UNTIL_ACCEPTED) -> Operation:
        """Idempotent by its tool call; it has `limit` seconds to be accepted. Raises OperationNotFound when the session
        is gone, and Unavailable."""
        async with self._house.database.connection() as c:
            return await operations.register(c, self._session_id, work, limit=limit)

    async def settled(self, operation: Operation, outcome: Outcome) -> Json | None:
        """Ends it with an answer that came at once; what the tool answers, or None: another outcome was faster."""
        return await settle_operation(self._house, operation, outcome)

    async def opened(self, operation: Operation) -> None:
        """Begins its stream. Raises Unavailable when Postgres is away: then it must be said again."""
        limit = self._house.settings.operation_timeout
        key = stream_key(operation.session_id, operation.task_id)
        writer = self._house.flusher.writer(key, fence_of(operation.number, 1), create=True)
        try:
            await writer.append(Start(f"{ANSWER_ID}{operation.task_id}"), StartStep(), call_chunk(operation.work.call))
            checkpoint = await writer.drain()
            await self._house.streams.refresh([key], longer=limit)
        except (AttemptEnded, Unavailable) as lost:  # its outcome begins the stream anew; or has come already
            logger.warning("stream of an operation not begun", extra={"why": type(lost).__name__})
            checkpoint = BEGINNING
        await self._note(operation, str(checkpoint), limit)

    async def begin_beside(self, work: ToolWork, run: Callable[[], Awaitable[Any]]) -> tuple[Operation, bool]:
        """Has this process do the work, beside its turns; the operation, and whether the call had begun it before. It
        has its result already when there is no room for it.

        Should the process die, the sweeper of another one tells that the work was interrupted.
        """
        known = await self.find(work.tool_call_id)
        if known is not None:
            return known, True
        limit = self._house.settings.operation_timeout
        operation = await self.register(replace(work, runner=self._house.me), limit)
        if not self._start(self._carry_out(operation, run)):
            return replace(operation, result=await self.settled(operation, BUSY)), False
        with suppress(Unavailable):  # it has begun, and tells its outcome in any case
            await self.opened(operation)
        return operation, False

    async def _carry_out(self, operation: Operation, run: Callable[[], Awaitable[Any]]) -> None:
        job = asyncio.ensure_future(run())
        try:
            async with asyncio.timeout(self._house.settings.operation_timeout):
                while not (await asyncio.wait({job}, timeout=LOOK_EVERY))[0]:
                    if not await self._is_outside(operation):
                        return  # cancelled, or deleted with its session
                outcome = _outcome_of(job.result())
        except TimeoutError:
            outcome = Outcome(False, {"error_type": "timeout"}, "The tool took too long.")
        except Exception:  # the boundary around tools: whatever one raises, the conversation is told
            logger.exception("tool failed", extra={"tool": operation.work.tool_name})
            outcome = Outcome(False, {"error_type": "tool_failed"}, "The tool failed.")
        finally:
            job.cancel()
        for _ in range(TELLING_TRIES):
            try:
                with suppress(AlreadyCompleted, OperationGone, OperationNotFound):
                    done = await complete_operation(self._house, operation.id, outcome)
                    if done.next_turn is not None:
                        await self._house.outbox.publish(done.next_turn)
            except Unavailable:
                await asyncio.sleep(TELLING_PAUSE)
            else:
                return
        logger.error("outcome not told: it is left to the deadline", extra={"operation_id": operation.id})

    async def _is_outside(self, operation: Operation) -> bool:
        try:
            async with self._house.database.connection() as c:
                return (await operations.get_operation(c, operation.id)).outside
        except OperationNotFound:
            return False
        except Unavailable:  # the next look comes soon
            return True

    async def _note(self, operation: Operation, checkpoint: str, limit: float) -> None:
        async with self._house.database.connection() as c:
            is_outside = await operations.open_operation(c, operation, checkpoint, limit=limit)
        if is_outside:  # else pages have heard of its end
            self._house.feed.tell(
                Hint.OPERATION_STARTED,
                operation.session_id,
                operation.user_id,
                task_id=operation.task_id,
                operation_id=operation.id,
                tool_name=operation.work.tool_name,
            )


def _outcome_of(response: ToolResponse) -> Outcome:
    if isinstance(response, ErrorResponse):
        return Outcome(False, {"error_type": response.error, "details": response.details}, response.message)
    return Outcome(True, response.model_dump(mode="json", exclude_none=True))

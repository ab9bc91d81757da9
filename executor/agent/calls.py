"""The tool calls of one step, run side by side: the step is as slow as its slowest call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any, Protocol

from pydantic import ValidationError

from backend.chat.chunks import Chunk, ToolOutputError
from backend.chat.models import Json, NewMessage, Role, ToolCallPart, ToolResultPart
from backend.chat.outcomes import ToolWork
from backend.chat.outputs import UNREADABLE_INPUT, output_chunk, safe_json
from backend.chat.tool_responses import (
    ErrorResponse,
    InputValidationError,
    OperationInProgress,
    OperationPending,
    OperationStarted,
    ToolResponse,
)
from backend.errors import Unavailable
from backend.failpoints import reach
from executor.agent.response import unanswered
from executor.tools.tool import Accepted, Stored, Tool, Toolbox, ToolContext

UNKNOWN_EFFECT = "interrupted_unknown_effect"
logger = logging.getLogger(__name__)


class Desk(Protocol):
    """What calls need of the turn they belong to."""

    def context_of(self, tool_call_id: str) -> ToolContext: ...

    async def check_claim(self) -> None:
        """Raises Fenced when another executor has the turn by now; called before a tool starts."""
        ...


class Calls:
    """The calls of one committed response. `run` yields a chunk as each ends; `messages` are the results, in order, as
    they are stored, `told` as the model is told them now: of work that was accepted by somebody else, that it began."""

    def __init__(self, calls: Sequence[ToolCallPart], toolbox: Toolbox, desk: Desk, limit: float) -> None:
        self._calls = calls
        self._toolbox = toolbox
        self._desk = desk
        self._limit = limit
        self._results: dict[str, ToolResultPart] = {}
        self._pending: dict[str, ToolResultPart] = {}

    def messages(self) -> list[NewMessage]:
        stored = {**self._results, **self._pending}
        return [NewMessage(Role.TOOL, (stored[call.tool_call_id],)) for call in self._calls]

    def told(self) -> list[NewMessage]:
        return [NewMessage(Role.TOOL, (self._results[call.tool_call_id],)) for call in self._calls]

    async def run(self, *, again: bool = False) -> AsyncGenerator[Chunk, None]:
        """Runs them. `again`: an earlier attempt may have run them, so only idempotent tools may run now."""
        jobs = {asyncio.ensure_future(self._result_of(call, again)): call for call in self._calls}
        waiting = set(jobs)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for job in done:
                    result = job.result()
                    self._results[result.tool_call_id] = result
                    if jobs[job].readable:  # else its tool-input-error has closed it
                        yield output_chunk(result)
        finally:
            for job in waiting:
                job.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        """Chunks that close the calls still running, and the messages of all of them."""
        closing: list[Chunk] = []
        said: list[NewMessage] = []
        for call in self._calls:
            if (result := self._pending.get(call.tool_call_id, self._results.get(call.tool_call_id))) is not None:
                said.append(NewMessage(Role.TOOL, (result,)))
            else:
                said += unanswered([call], why)
                if call.readable:
                    closing.append(ToolOutputError(call.tool_call_id, why))
        return closing, said

    async def _result_of(self, call: ToolCallPart, again: bool) -> ToolResultPart:
        output, is_error = await self._output_of(call, again)
        return ToolResultPart(call.tool_call_id, call.tool_name, safe_json(output), is_error)

    async def _output_of(self, call: ToolCallPart, again: bool) -> tuple[Json, bool]:
        tool = self._toolbox.find(call.tool_name)
        if not call.readable:
            return _json(InputValidationError(message=UNREADABLE_INPUT)), True
        if tool is None:
            return _json(
                ErrorResponse(message=f"There is no tool named {call.tool_name}.", error="unknown_tool")
            ), False
        if again and not (tool.idempotent or tool.long_running):
            why = "The server stopped while this call ran; whether it took effect is unknown."
            return {"type": "error", "message": why, "error": UNKNOWN_EFFECT}, True
        try:
            wish = tool.input_type.model_validate(call.input)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
            return _json(InputValidationError(message=f"The input does not fit: {problems}")), False
        reach("after_tool_start")
        await self._desk.check_claim()
        try:
            async with asyncio.timeout(tool.time_limit or self._limit):
                response = await self._run(tool, wish, call, self._desk.context_of(call.tool_call_id))
            reach("after_tool_effect")
        except TimeoutError:
            return _json(ErrorResponse(message="The tool took too long.", error="timeout")), False
        except Exception as error:  # the boundary around tools: whatever one raises, the model is told and goes on
            if isinstance(error, Unavailable) and tool.idempotent:
                raise  # a store is away: the turn comes again, and the call with it
            logger.exception("tool failed", extra={"tool": call.tool_name})
            return _json(ErrorResponse(message="The tool failed.", error="tool_failed")), False
        match response:
            case Accepted():
                return self._accept(call, response), False
            case Stored(output):
                return output, False
        return _json(response), False

    async def _run(
        self, tool: Tool[Any], wish: Any, call: ToolCallPart, context: ToolContext
    ) -> ToolResponse | Accepted | Stored:
        if not tool.long_running:
            return await tool.run(wish, context)
        work = ToolWork(context.task_id, call.tool_name, call.tool_call_id, call.input)
        operation, again = await context.operations.begin_beside(work, partial(tool.run, wish, context))
        return Accepted(operation, again) if operation.result is None else Stored(operation.result)

    def _accept(self, call: ToolCallPart, accepted: Accepted) -> Json:
        """Two words for one thing: what is told now, and what stands in the conversation until the result comes."""
        operation = accepted.operation
        name, session = operation.work.tool_name, operation.session_id
        words = "The work goes on in the background; its result will come by itself. Do not wait for it."
        pending = OperationPending(message=words, session_id=session, operation_id=operation.id, tool_name=name)
        self._pending[call.tool_call_id] = ToolResultPart(call.tool_call_id, call.tool_name, _json(pending))
        if accepted.again:
            return _json(OperationInProgress(message=words, session_id=session, tool_call_id=call.tool_call_id))
        started = OperationStarted(
            message=words, session_id=session, operation_id=operation.id, tool_name=name, task_id=operation.task_id
        )
        return _json(started)


class Delivered:
    """The call of an operation whose result has come from outside: it is shown, and stands in the history already."""

    def __init__(self, result: ToolResultPart) -> None:
        self._result = result
        self._shown = False

    def messages(self) -> list[NewMessage]:
        return []

    def told(self) -> list[NewMessage]:
        return []

    async def run(self, *, again: bool = False) -> AsyncGenerator[Chunk, None]:
        self._shown = True
        yield output_chunk(self._result)

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        return ([] if self._shown else [output_chunk(self._result)]), []


def _json(response: ToolResponse) -> Json:
    return response.model_dump(mode="json", exclude_none=True)

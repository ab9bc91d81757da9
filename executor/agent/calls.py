"""The tool calls of one step, run side by side: the step is as slow as its slowest call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from pydantic import ValidationError

from backend.chat.chunks import Chunk, ToolOutputError
from backend.chat.models import Json, NewMessage, Role, ToolCallPart, ToolResultPart
from backend.chat.outputs import UNREADABLE_INPUT, output_chunk, safe_json
from backend.chat.tool_responses import ErrorResponse, InputValidationError, ToolResponse
from backend.failpoints import reach
from executor.agent.response import unanswered
from executor.tools.tool import Toolbox, ToolContext

UNKNOWN_EFFECT = "interrupted_unknown_effect"
logger = logging.getLogger(__name__)


class Desk(Protocol):
    """What calls need of the turn they belong to."""

    def context_of(self, tool_call_id: str) -> ToolContext: ...

    async def check_claim(self) -> None:
        """Raises Fenced when another executor has the turn by now; called before a tool starts."""
        ...


class Calls:
    """The calls of one committed response. `run` yields a chunk as each ends; `messages` are the results, in order."""

    def __init__(self, calls: Sequence[ToolCallPart], toolbox: Toolbox, desk: Desk, limit: float) -> None:
        self._calls = calls
        self._toolbox = toolbox
        self._desk = desk
        self._limit = limit
        self._results: dict[str, ToolResultPart] = {}

    def messages(self) -> list[NewMessage]:
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
            if (result := self._results.get(call.tool_call_id)) is not None:
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
        if again and not tool.idempotent:
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
            async with asyncio.timeout(self._limit):
                response = await tool.run(wish, self._desk.context_of(call.tool_call_id))
            reach("after_tool_effect")
        except TimeoutError:
            return _json(ErrorResponse(message="The tool took too long.", error="timeout")), False
        except Exception:  # the boundary around tools: whatever one raises, the model is told and goes on
            logger.exception("tool failed", extra={"tool": call.tool_name})
            return _json(ErrorResponse(message="The tool failed.", error="tool_failed")), False
        return _json(response), False


def _json(response: ToolResponse) -> Json:
    return response.model_dump(mode="json", exclude_none=True)

"""The tool calls of one step, which run at the same time: the step takes as long as its slowest call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from pydantic import ValidationError

from backend.chat.models import Json, NewMessage, Role, ToolCallPart, ToolResultPart
from backend.chat.outcomes import Outcome, ToolWork
from backend.chat.protocol.chunks import Chunk, ToolOutputError
from backend.chat.protocol.tool_outputs import UNREADABLE_INPUT, output_chunk, safe_json
from backend.chat.protocol.tool_responses import (
    ErrorResponse,
    InputValidationError,
    OperationInProgress,
    OperationPending,
    OperationStarted,
    OperationStatus,
    ToolResponse,
)
from backend.chat.questions import Question, QuestionKind
from backend.errors import TooManyOperations, TooManyRuns, TooManySchedules, Unavailable
from backend.failpoints import reach
from backend.tracing import part
from executor.agent.progress import ProgressReports, TimeLimitExtension, progress_of
from executor.agent.response import unanswered
from executor.tools.approval import Decision
from executor.tools.context import Sample, ToolContext
from executor.tools.tool import OperationAccepted, StoredResponse, Tool, Toolbox

_NAME_CHARS = 100
"""The most characters of a name of a tool, which a model has written, in a trace."""
MAX_PARALLEL_CALLS = 16
"""Calls of one response that run at the same time. The others wait; their time limits start when they run."""
TOO_LONG = ErrorResponse(message="The tool took too long.", error="timeout")
FAILED = ErrorResponse(message="The tool failed.", error="tool_failed")
GOES_ON = "The work goes on in the background; its result will come by itself. Do not wait for it."
ASKED: Mapping[QuestionKind, str] = {
    QuestionKind.QUESTION: (
        "The user was asked and has not answered yet. The question stands open, and the answer comes by itself. If the "
        "user has written something else, answer that, and do not ask again."
    ),
    QuestionKind.APPROVAL: (
        "The user was asked whether this call may run, and has not decided yet. It has not run. If the user has "
        "written something else, answer that, and do not call it again."
    ),
    QuestionKind.PAGE_TOOL: (
        "The call was handed to the user's page, which has not answered yet. The result comes by itself. If the user "
        "has written something else, answer that, and do not call it again."
    ),
    QuestionKind.ELICITATION: (
        "The tool asks the user something, and the user has not answered yet. The call goes on with the answer. Its "
        "result comes by itself. If the user has written something else, answer that, and do not call it again."
    ),
}
"""What the model reads in place of an answer that has not come yet."""
APPROVED = "_approved"
"""The suffix of an approved call's id in the id of an operation's call, if the call begins one."""
UNKNOWN_EFFECT = "interrupted_unknown_effect"
logger = logging.getLogger(__name__)


class ToolHost(Protocol):
    """The turn to which tool calls belong, as far as the calls need it."""

    def context_of(self, tool_call_id: str) -> ToolContext: ...

    async def check_claim(self) -> None:
        """Raises Fenced if another executor has taken the turn over; called before a tool starts."""
        ...

    async def decision_for(self, tool: Tool[Any]) -> Decision:
        """Returns what is decided about calls of the tool in this session."""
        ...

    async def begin_run(self) -> None:
        """Stores that the approved call of this task is about to run. Raises Fenced if the claim is lost."""
        ...

    async def other_questions_wait(self) -> bool:
        """Returns True if this task continues a question, and another question of the same turn has no answer yet."""
        ...


class Calls:
    """The calls of one committed response. `limit` is that of a call whose tool sets none, in seconds.

    `approved` is True if the user has approved them. An operation that such a call begins gets a call id of its own,
    since the id of the call already names the question. `sample` asks the turn's model for a tool.
    """

    def __init__(
        self,
        calls: Sequence[ToolCallPart],
        toolbox: Toolbox,
        host: ToolHost,
        limit: float,
        *,
        approved: bool = False,
        sample: Sample | None = None,
    ) -> None:
        self._calls = calls
        self._toolbox = toolbox
        self._host = host
        self._limit = limit
        self._approved = approved
        self._sample = sample
        self._slots = asyncio.Semaphore(MAX_PARALLEL_CALLS)
        self._results: dict[str, ToolResultPart] = {}
        self._pending: dict[str, ToolResultPart] = {}
        self._reports = ProgressReports()
        self.wait_for_user = False
        """One of the calls asks the user, so the turn ends with these calls."""

    def stored_messages(self) -> list[NewMessage]:
        """Returns the results in the order of the calls. An operation's result is stored as pending."""
        stored = {**self._results, **self._pending}
        return [NewMessage(Role.TOOL, (stored[call.tool_call_id],)) for call in self._calls]

    def prompt_messages(self) -> list[NewMessage]:
        """Returns the results as the model sees them in this turn. An operation's result says that the work started."""
        return [NewMessage(Role.TOOL, (self._results[call.tool_call_id],)) for call in self._calls]

    async def run(self, *, again: bool = False) -> AsyncGenerator[Chunk, None]:
        """Runs the calls and yields each result as it comes, and the progress that they report.

        `again` means that an earlier attempt may have run them, so only idempotent tools and operations run now.
        """
        jobs = {asyncio.ensure_future(self._result_of(call, again)): call for call in self._calls}
        waiting = set(jobs)
        reported = asyncio.ensure_future(self._reports.arrived.wait())
        try:
            while waiting:
                await asyncio.wait({*waiting, reported}, return_when=asyncio.FIRST_COMPLETED)
                for job in [job for job in waiting if job.done()]:
                    waiting.remove(job)
                    result = job.result()
                    self._results[result.tool_call_id] = result
                    self._reports.forget(result.tool_call_id)
                    if jobs[job].readable:  # a call with unreadable input was closed by its tool-input-error
                        yield output_chunk(result)
                if reported.done():
                    for chunk in self._reports.take():
                        yield chunk
                    reported = asyncio.ensure_future(self._reports.arrived.wait())
        finally:
            reported.cancel()
            for job in waiting:
                job.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        """Returns chunks that close the calls still running, and the tool messages of all calls."""
        closing: list[Chunk] = []
        messages: list[NewMessage] = []
        for call in self._calls:
            if (result := self._pending.get(call.tool_call_id, self._results.get(call.tool_call_id))) is not None:
                messages.append(NewMessage(Role.TOOL, (result,)))
            else:
                messages += unanswered([call], why)
                if call.readable:
                    closing.append(ToolOutputError(call.tool_call_id, why))
        return closing, messages

    async def _result_of(self, call: ToolCallPart, again: bool) -> ToolResultPart:
        known = self._toolbox.find(call.tool_name) is not None  # the model may have made up the name, of any text
        name = call.tool_name[:_NAME_CHARS] if known else "unknown_tool"
        about = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call.tool_call_id,
        }
        async with self._slots:
            with part(f"execute_tool {name}", about) as span:
                output, is_error = await self._output_of(call, again)
                if is_error or (isinstance(output, dict) and output.get("type") == "error"):
                    span.fail("tool_error")
        return ToolResultPart(call.tool_call_id, call.tool_name, safe_json(output), is_error)

    async def _output_of(self, call: ToolCallPart, again: bool) -> tuple[Json, bool]:
        tool, given = self._toolbox.resolve(call.tool_name, call.input)
        if not call.readable:
            return _json(InputValidationError(message=UNREADABLE_INPUT)), True
        if tool is None:
            return _json(
                ErrorResponse(message=f"There is no tool named {call.tool_name}.", error="unknown_tool")
            ), False
        try:
            arguments = tool.input_type.model_validate(given)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
            return _json(InputValidationError(message=f"The input does not fit: {problems}")), False
        if not self._approved and (decided := await self._unless_allowed(tool, call)) is not None:
            return decided, False
        if again and tool.server is not None and (begun := await self._begun(call)) is not None:
            return begun, False
        if again and not (tool.idempotent or tool.long_running):
            why = "The server stopped while this call ran; whether it took effect is unknown."
            return {"type": "error", "message": why, "error": UNKNOWN_EFFECT}, True
        reach("after_tool_start")
        await self._host.check_claim()
        context = self._context_of(call)
        try:
            limit = tool.time_limit or self._limit
            async with asyncio.timeout(limit) as clock:
                context = replace(context, again=again)
                response = await self._run(tool, arguments, call, self._timed_context(call, context, clock, limit))
            reach("after_tool_effect")
        except TimeoutError:
            return await self._failed(tool, call, context, TOO_LONG), False
        except TooManyOperations as error:
            return _json(ErrorResponse(message=f"{error} Wait until some have ended.", error=error.code)), False
        except (TooManyRuns, TooManySchedules) as error:
            return _json(ErrorResponse(message=str(error), error=error.code)), False
        except Exception as error:  # the boundary around tools: any error becomes a result for the model
            if isinstance(error, Unavailable) and tool.idempotent:
                raise  # a store is unavailable: the turn is delivered again, and the call repeated
            logger.exception("tool failed", extra={"tool": call.tool_name})
            return await self._failed(tool, call, context, FAILED), False
        match response:
            case OperationAccepted():
                return self._accept(call, response), False
            case StoredResponse(output):
                return output, False
        return _json(response), False

    def _context_of(self, call: ToolCallPart) -> ToolContext:
        return self._host.context_of(call.tool_call_id + (APPROVED if self._approved else ""))

    async def _unless_allowed(self, tool: Tool[Any], call: ToolCallPart) -> Json | None:
        """Returns the output of a call that may not run, or not yet, and None for one that may.

        Raises Unavailable; the call is then repeated, and finds the question that it has asked.
        """
        decision = await self._host.decision_for(tool)
        if decision is Decision.ALLOW:
            return None
        if decision is Decision.DENY:
            return _json(ErrorResponse(message="This server does not allow calls of this tool.", error="denied"))
        context = self._host.context_of(call.tool_call_id)
        question = Question(QuestionKind.APPROVAL, tool.name)
        work = ToolWork(context.task_id, call.tool_name, call.tool_call_id, call.input, asks=question)
        try:
            asked = await context.operations.ask(work)
        except TooManyOperations as error:
            return _json(ErrorResponse(message=f"{error} Wait until some have ended.", error=error.code))
        if asked.operation.result is not None:
            return asked.operation.result
        return self._accept(call, OperationAccepted(asked.operation, asked.already_started))

    async def _begun(self, call: ToolCallPart) -> Json | None:
        """Returns the output of a call that has ended with a question, or become a task at its server, in an earlier
        attempt. None for any other. Raises Unavailable.
        """
        context = self._context_of(call)
        operation = await context.operations.find(context.tool_call_id)
        if operation is None or (operation.work.asks is None and operation.work.remote is None):
            return None
        if operation.pending and not operation.opened:  # else it would end without a continuation
            await context.operations.mark_opened(operation)
        return self._accept(call, OperationAccepted(operation)) if operation.result is None else operation.result

    async def _failed(self, tool: Tool[Any], call: ToolCallPart, context: ToolContext, failure: ErrorResponse) -> Json:
        """Returns the output of a failed call. If the tool had begun an operation, it is the state of that operation.

        An operation that no service has accepted ends with the failure; any other goes on. Raises Unavailable if the
        call can be repeated.
        """
        try:
            operation = await context.operations.fail(
                context.tool_call_id, Outcome(False, {"error_type": failure.error}, failure.message)
            )
        except Unavailable:
            if tool.idempotent:
                raise
            operation = None  # it ends by itself if no service accepts it in time
        if operation is not None and operation.result is not None:
            return operation.result
        if operation is not None and operation.pending:
            return self._accept(call, OperationAccepted(operation))
        return _json(failure)

    def _timed_context(
        self, call: ToolCallPart, context: ToolContext, clock: asyncio.Timeout, limit: float
    ) -> ToolContext:
        extension = TimeLimitExtension(clock, limit)

        async def report(done: float, total: float | None, message: str | None) -> None:
            extension.extend()
            self._reports.add(call.tool_call_id, progress_of(done, total, message))

        return replace(context, clock=clock, progress=report, show=self._reports.show, sample=self._sample)

    async def _run(
        self, tool: Tool[Any], arguments: Any, call: ToolCallPart, context: ToolContext
    ) -> ToolResponse | OperationAccepted | StoredResponse:
        if not tool.long_running:
            return await tool.run(arguments, context)
        report = partial(_report_operation, context, context.tool_call_id)
        context = replace(context, clock=None, progress=report, show=None, sample=None)  # the work outlives this call
        work = ToolWork(context.task_id, call.tool_name, context.tool_call_id, call.input)
        started = await context.operations.run_in_background(work, partial(tool.run, arguments, context))
        if (result := started.operation.result) is not None:
            return StoredResponse(result)
        return OperationAccepted(started.operation, started.already_started)

    def _accept(self, call: ToolCallPart, accepted: OperationAccepted) -> Json:
        """Returns the output that the model sees in this turn.

        The commit stores the `operation_pending` output in its place, until the result arrives.
        """
        operation = accepted.operation
        name, session = operation.work.tool_name, operation.session_id
        question = operation.work.asks
        if self._approved:
            return _json(
                OperationStatus(
                    message=GOES_ON,
                    session_id=session,
                    task_id=operation.task_id,
                    operation_id=operation.id,
                    status=operation.status.value,
                    tool_name=name,
                )
            )
        self.wait_for_user |= question is not None
        asks, words = (None, GOES_ON) if question is None else (question.kind.value, ASKED[question.kind])
        shown = question.as_json() if question is not None and question.kind is QuestionKind.ELICITATION else None
        order = None if question is None else question.property_order
        pending = OperationPending(
            message=words,
            session_id=session,
            operation_id=operation.id,
            tool_name=name,
            asks=asks,
            question=shown,
            property_order=order,
        )
        self._pending[call.tool_call_id] = ToolResultPart(call.tool_call_id, call.tool_name, _json(pending))
        if accepted.already_started and question is None:
            return _json(OperationInProgress(message=words, session_id=session, tool_call_id=call.tool_call_id))
        started = OperationStarted(
            message=words,
            session_id=session,
            operation_id=operation.id,
            tool_name=name,
            task_id=operation.task_id,
            asks=asks,
            question=shown,
            property_order=order,
        )
        return _json(started)


class DeliveredCall:
    """The call of an operation whose result has come. The history holds the result already; the stream must show it."""

    wait_for_user = False

    def __init__(self, result: ToolResultPart) -> None:
        self._result = result
        self._shown = False

    def stored_messages(self) -> list[NewMessage]:
        return []

    def prompt_messages(self) -> list[NewMessage]:
        return []

    async def run(self, *, again: bool = False) -> AsyncGenerator[Chunk, None]:
        self._shown = True
        yield output_chunk(self._result)

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        return ([] if self._shown else [output_chunk(self._result)]), []


async def _report_operation(
    context: ToolContext, tool_call_id: str, done: float, total: float | None, message: str | None
) -> None:
    await context.operations.report_progress(tool_call_id, progress_of(done, total, message))


def _json(response: ToolResponse) -> Json:
    return response.model_dump(mode="json", exclude_none=True)

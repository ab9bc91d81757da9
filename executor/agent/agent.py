"""The model ⇄ tools loop of one turn, as one async generator of chunks. It does no I/O except through its arguments.

The generator yields a `Commit` when messages must be stored before it may continue: after a model response, so that a
tool call is stored before it runs, and after the results. The caller stores a commit before it asks for the next item.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, replace

from backend.chat.models import (
    AnswerEnd,
    DataPart,
    Message,
    NewMessage,
    Role,
    SourcePart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from backend.chat.outcomes import Operation
from backend.chat.protocol.chunks import Chunk, FinishStep, StartStep
from backend.errors import ProviderError
from executor.agent.approved_call import ApprovedCall
from executor.agent.calls import Calls, DeliveredCall, ToolHost
from executor.agent.pages_read import pages_read
from executor.agent.response import Response
from executor.llm.events import Finished, TextDelta, UsageSoFar
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt
from executor.tools.context import Sampled
from executor.tools.tool import Toolbox

Row = Message | NewMessage
Load = Callable[[Prompt], AbstractAsyncContextManager[Prompt]]
"""Holds a prompt with the contents of its files while a model answers it."""
WAITS = AnswerEnd("tool-calls")
"""The answer end of a turn that waits for the user. Its conversation continues after the user's answer."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Commit:
    """Messages to store now, and the tokens they cost. The last commit of a turn has the end of the answer.

    `result` is that of the approved call which this task has run. `goes_on`: the model is asked next, so messages of
    the user may come before that (`Agent.take_in`).
    """

    messages: tuple[NewMessage, ...]
    usage: Usage
    last: AnswerEnd | None = None
    result: ToolResultPart | None = None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Answerer:
    """A model that may answer. `prompt_of` makes its next prompt from the rows so far; `priced` adds to tokens the
    model's id and their cost."""

    id: str
    model: Model
    prompt_of: Callable[[Sequence[Row]], Prompt]
    priced: Callable[[Usage], Usage] = lambda usage: usage


FINAL = frozenset({"content_filter"})
"""Failures after which no other model is asked. A filter refuses the message itself, and another model must not be the
way around it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one turn: model calls, tokens of all calls together, and seconds of each tool call."""

    steps: int
    tokens: int
    tool_seconds: float


class Agent:
    """The loop of one attempt. The first of the `answerers` is asked; when one fails before its first event, the next
    one takes its place until the attempt ends.

    `label` becomes part of every part id and must differ for each attempt at a stream. `load` reads
    the files of a prompt, and holds them while the model answers.
    """

    def __init__(
        self,
        answerers: Sequence[Answerer],
        toolbox: Toolbox,
        host: ToolHost,
        limits: Limits,
        *,
        label: str,
        load: Load | None = None,
    ) -> None:
        self._answerer, *self._fallbacks = answerers
        self._toolbox = toolbox
        self._host = host
        self._limits = limits
        self._label = label
        self._load = load or nullcontext
        self._current: Response | Calls | DeliveredCall | ApprovedCall | None = None
        self._committed: Sequence[Row] = ()
        self._cited: set[str] = set()
        self._taken: list[Row] = []
        self.usage = Usage()
        self._sampled = Usage()
        """Tokens of models that tools have asked, which are not stored yet."""
        self.step_open = False
        self.prompt: Prompt | None = None
        """The last prompt."""

    def recall(
        self,
        committed: Sequence[Row],
        usage: Usage,
        *,
        step_open: bool,
        outcome: ToolResultPart | None = None,
        approved: Operation | None = None,
    ) -> None:
        """Continues from an earlier attempt: the turn's committed rows, their cost, and whether a step is open.

        If `committed` is only the call of an operation, pass one of these: `outcome`, the result of the call, or
        `approved`, the operation whose approved call is to run.
        """
        self._committed = committed
        self._cited = {part.url for row in committed for part in row.parts if isinstance(part, SourcePart)}
        self.usage = usage
        self.step_open = step_open
        pending = pending_calls(committed)
        if pending and approved is not None:
            calls = self._prepare(pending, approved=True)
            self._current = ApprovedCall(calls, self._host, begun=approved.begun)
        elif pending:
            self._current = DeliveredCall(outcome) if outcome is not None else self._prepare(pending)

    async def run(self, rows: Sequence[Row], notice: DataPart | None = None) -> AsyncGenerator[Chunk | Commit, None]:
        """Yields the chunks and commits that follow `rows`, the session's whole history.

        The next response of the model begins with `notice`.

        Raises ProviderError if the model fails or the turn reaches a limit.
        """
        rows = [*rows, *self._take_over()]
        calls_made = sum(row.role is Role.ASSISTANT for row in self._committed)
        if isinstance(self._current, Calls | DeliveredCall | ApprovedCall):
            calls = self._current
            async for item in self._finish_calls(calls, rows, calls_made, again=True):
                yield item
            if calls.wait_for_user:
                return
        if await self._is_one_of_several(calls_made):
            yield Commit((), Usage(), last=WAITS)
            return
        while calls_made < self._limits.steps:
            calls_made += 1
            response = self._current = Response(f"{self._label}-{calls_made}", self._cited, notice, pages_read(rows))
            notice = None
            async for chunk in self._respond(response, rows):
                yield chunk
            message = response.message()
            new_messages = (message,) if message is not None else ()
            rows += new_messages
            if not response.calls:
                self._current = None
                yield Commit(new_messages, response.usage, last=response.end)
                return
            yield Commit(new_messages, response.usage)
            calls = self._current = self._prepare(response.calls)
            async for item in self._finish_calls(calls, rows, calls_made):
                yield item
            if calls.wait_for_user:
                return
            if self.usage.total_tokens > self._limits.tokens:
                raise ProviderError("This turn used all the tokens it may use.", code="turn_tokens_exceeded")
        raise ProviderError(
            f"This turn took more than {self._limits.steps} steps and was stopped.", code="too_many_steps"
        )

    async def asks_model_next(self) -> bool:
        """Returns True if the model is asked first: there are no calls of an earlier attempt to finish before."""
        calls_made = sum(row.role is Role.ASSISTANT for row in self._committed)
        return self._current is None and not await self._is_one_of_several(calls_made)

    async def _is_one_of_several(self, calls_made: int) -> bool:
        """Returns True if this turn continues a question, and other questions of the same turn are still open.

        The model is then asked in the turn that continues the last of them.
        """
        return calls_made == 1 and await self._host.other_questions_wait()

    def take_in(self, messages: Sequence[Row]) -> None:
        """Puts messages of the user before the next call of the model. Call it before `run`, or after a commit that
        `goes_on`.
        """
        self._taken += messages

    def _take_over(self) -> list[Row]:
        taken, self._taken = self._taken, []
        return taken

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        """Stops here. Returns chunks that close the stream's open parts, and the messages that are not committed yet.

        Tool calls without a result get `why` as their error.
        """
        return self._current.interrupt(why) if self._current is not None else ([], [])

    @property
    def uncommitted_result(self) -> ToolResultPart | None:
        """Returns the result of an approved call that was interrupted, or has ended and is not stored."""
        return self._current.result if isinstance(self._current, ApprovedCall) else None

    @property
    def uncommitted_usage(self) -> Usage:
        """Returns the tokens of what was interrupted, a response or calls, as far as the provider has told them."""
        response = self._current
        if not isinstance(response, Response):
            return self._sampled
        return self._answerer.priced(response.usage) if response.begun or response.usage.total_tokens else Usage()

    async def _respond(self, response: Response, rows: Sequence[Row]) -> AsyncGenerator[Chunk, None]:
        if not self.step_open:
            self.step_open = True
            yield StartStep()
        while True:
            try:
                prompt = self.prompt = self._answerer.prompt_of(rows)
                async with (
                    self._load(prompt) as loaded,
                    aclosing(self._answerer.model.stream(loaded)) as events,
                ):
                    async for event in events:
                        for chunk in response.take(event):
                            yield chunk
                break
            except ProviderError as failure:
                if response.begun or not self._fallbacks or failure.code in FINAL:
                    raise
                self._fall_back(failure)
        response.usage = self._answerer.priced(response.usage)
        self.usage += response.usage

    def _fall_back(self, failure: ProviderError) -> None:
        failed, self._answerer = self._answerer, self._fallbacks.pop(0)
        named = {"model": failed.id, "fallback": self._answerer.id, "error": failure.code}
        logger.warning("a model failed before its answer began; its fallback answers", extra=named)

    def _prepare(self, calls: Sequence[ToolCallPart], *, approved: bool = False) -> Calls:
        seconds = self._limits.tool_seconds
        return Calls(calls, self._toolbox, self._host, seconds, approved=approved, sample=self._sample)

    async def _sample(self, system: str, messages: Sequence[NewMessage], most: int) -> Sampled:
        """Asks the turn's model for a tool. Its tokens are stored with the result of the step. Raises ProviderError."""
        if self.usage.total_tokens + self._sampled.total_tokens > self._limits.tokens:
            raise ProviderError("This turn used all the tokens it may use.", code="turn_tokens_exceeded")
        answerer, text, end, used = self._answerer, "", None, Usage()
        try:
            prompt = Prompt(system, to_prompt_messages(messages), max_output_tokens=most)
            async with aclosing(answerer.model.stream(prompt)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        text += event.text
                    elif isinstance(event, UsageSoFar | Finished):
                        used, end = event.usage, event
        finally:
            self._sampled += answerer.priced(used) if used.total_tokens else used
        return Sampled(text, answerer.model.name, isinstance(end, Finished) and end.reason == "length")

    async def _finish_calls(
        self, calls: Calls | DeliveredCall | ApprovedCall, rows: list[Row], calls_made: int, *, again: bool = False
    ) -> AsyncGenerator[Chunk | Commit, None]:
        async with aclosing(calls.run(again=again)) as chunks:
            async for chunk in chunks:
                yield chunk
        result = None
        if isinstance(calls, ApprovedCall):
            result = calls.result
            assert result is not None, "a call that has run has a result"
            rows[:] = _with_result(rows, result)
        else:
            rows += calls.prompt_messages()
        yield FinishStep()
        self.step_open = False
        last = WAITS if calls.wait_for_user else None
        sampled, self._sampled = self._sampled, Usage()
        self.usage += sampled
        within_limits = calls_made < self._limits.steps and self.usage.total_tokens <= self._limits.tokens
        goes_on = last is None and within_limits and not await self._is_one_of_several(calls_made)
        yield Commit(tuple(calls.stored_messages()), sampled, last, result, goes_on)
        self._current = None
        rows += self._take_over()


def pending_calls(committed: Sequence[Row]) -> list[ToolCallPart]:
    """Returns the tool calls whose results an earlier attempt did not commit: those of a response that is last."""
    if not committed or committed[-1].role is not Role.ASSISTANT:
        return []
    return [part for part in committed[-1].parts if isinstance(part, ToolCallPart)]


def _with_result(rows: Sequence[Row], result: ToolResultPart) -> list[Row]:
    """Returns the rows with the result in its place, or at the end if there is no row for it."""
    kept: list[Row] = []
    placed = False
    for row in rows:
        its = any(isinstance(part, ToolResultPart) and part.tool_call_id == result.tool_call_id for part in row.parts)
        kept.append(replace(row, parts=(result,)) if its else row)
        placed = placed or its
    return kept if placed else [*kept, NewMessage(Role.TOOL, (result,))]

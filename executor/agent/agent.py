"""The model ⇄ tools loop of one turn, as one async generator of chunks. No I/O of its own: it is handed all it uses.

It yields a `Commit` where its messages must be stored before it may go on: after a model response (so a tool call is
stored before it runs) and after the results. Whoever drives it commits before asking for more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from backend.chat.chunks import Chunk, FinishReason, FinishStep, StartStep
from backend.chat.models import Message, NewMessage, Role, SourcePart, ToolCallPart, ToolResultPart, Usage
from backend.errors import ProviderError
from executor.agent.calls import Calls, Delivered, Desk
from executor.agent.response import Response
from executor.llm.model import Model, Prompt
from executor.tools.tool import Toolbox

Row = Message | NewMessage


@dataclass(frozen=True, slots=True)
class Commit:
    """Messages to store now. The last one of a turn carries the reason for which the model stopped."""

    messages: tuple[NewMessage, ...]
    usage: Usage
    last: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one turn may use: model calls, tokens in all, seconds a tool call."""

    steps: int
    tokens: int
    tool_seconds: float


class Agent:
    """One turn's loop. `prompt_of` makes the next prompt from the rows so far; `label` keeps part ids apart."""

    def __init__(
        self,
        model: Model,
        toolbox: Toolbox,
        desk: Desk,
        limits: Limits,
        prompt_of: Callable[[Sequence[Row]], Prompt],
        *,
        label: str,
    ) -> None:
        self._model = model
        self._toolbox = toolbox
        self._desk = desk
        self._limits = limits
        self._prompt_of = prompt_of
        self._label = label
        self._current: Response | Calls | Delivered | None = None
        self._said: Sequence[Row] = ()
        self._cited: set[str] = set()
        self.usage = Usage()
        self.step_open = False

    def recall(
        self, said: Sequence[Row], usage: Usage, *, step_open: bool, outcome: ToolResultPart | None = None
    ) -> None:
        """Where an earlier attempt got to: this turn's committed rows, what they cost, and whether a step is open.

        Of an operation, `outcome` is the result of its call, which `said` holds alone until it is shown."""
        self._said = said
        self._cited = {part.url for row in said for part in row.parts if isinstance(part, SourcePart)}
        self.usage = usage
        self.step_open = step_open
        if pending := pending_calls(said):
            self._current = Delivered(outcome) if outcome is not None else self._prepare(pending)

    async def run(self, rows: Sequence[Row]) -> AsyncGenerator[Chunk | Commit, None]:
        """Goes on from `rows`, the whole history. Raises ProviderError: also when a limit is passed."""
        rows = list(rows)
        if isinstance(self._current, Calls | Delivered):
            async for item in self._finish_calls(self._current, rows, again=True):
                yield item
        calls_made = sum(row.role is Role.ASSISTANT for row in self._said)
        while calls_made < self._limits.steps:
            calls_made += 1
            response = self._current = Response(f"{self._label}-{calls_made}", self._cited)
            async for chunk in self._respond(response, rows):
                yield chunk
            message = response.message()
            spoken = (message,) if message is not None else ()
            rows += spoken
            if not response.calls:
                self._current = None
                yield Commit(spoken, response.usage, last=response.reason)
                return
            yield Commit(spoken, response.usage)
            calls = self._current = self._prepare(response.calls)
            async for item in self._finish_calls(calls, rows):
                yield item
            if self.usage.total_tokens > self._limits.tokens:
                raise ProviderError("This turn used all the tokens it may use.", code="turn_tokens_exceeded")
        raise ProviderError(
            f"This turn took more than {self._limits.steps} steps and was stopped.", code="too_many_steps"
        )

    def interrupt(self, why: str) -> tuple[list[Chunk], list[NewMessage]]:
        """What closes the stream's open parts, and the messages that keep what was said but not committed."""
        return self._current.interrupt(why) if self._current is not None else ([], [])

    async def _respond(self, response: Response, rows: Sequence[Row]) -> AsyncGenerator[Chunk, None]:
        if not self.step_open:
            self.step_open = True
            yield StartStep()
        async with aclosing(self._model.stream(self._prompt_of(rows))) as events:
            async for event in events:
                for chunk in response.take(event):
                    yield chunk
        self.usage += response.usage

    def _prepare(self, calls: Sequence[ToolCallPart]) -> Calls:
        return Calls(calls, self._toolbox, self._desk, self._limits.tool_seconds)

    async def _finish_calls(
        self, calls: Calls | Delivered, rows: list[Row], *, again: bool = False
    ) -> AsyncGenerator[Chunk | Commit, None]:
        async with aclosing(calls.run(again=again)) as chunks:
            async for chunk in chunks:
                yield chunk
        rows += calls.told()
        yield FinishStep()
        self.step_open = False
        yield Commit(tuple(calls.messages()), Usage())
        self._current = None


def pending_calls(said: Sequence[Row]) -> list[ToolCallPart]:
    """The calls of a turn's last committed response that have no committed result."""
    if not said or said[-1].role is not Role.ASSISTANT:
        return []
    return [part for part in said[-1].parts if isinstance(part, ToolCallPart)]

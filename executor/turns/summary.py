"""The summary of a conversation that fills its context, made after the end of a turn, beside the next ones.

The place where a summary ends is the end of an exchange, so calls and their results stay together. It is chosen so that
much is replaced at once: between two summaries, prompts keep their beginning, which providers cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from backend.chat.models import Message, Role, Task, TextPart, ToolCallPart
from backend.chat.resources import Resources
from backend.chat.store import operations, sessions, tasks
from backend.chat.store.derived import summaries
from backend.chat.store.derived.summaries import Summary, SummaryClaim
from backend.chat.store.instructions import instructions_of
from backend.errors import ProviderError, Unavailable
from backend.postgres import Connection
from executor.llm.fitting import messages_tokens
from executor.llm.history import GO_ON, to_prompt_messages
from executor.llm.model import Prompt
from executor.llm.summaries import NoSummary, SummaryCall, request_for_summary
from executor.turns.context import ExecutorContext, SummaryModel
from executor.turns.continuation import choice_of
from executor.turns.history import History, read_history
from executor.turns.refused import exchanges_of

FULL = 0.75
"""A conversation is summarised when its messages fill this part of their room."""
KEPT = 0.25
"""The part of the room for the newest exchanges, which no summary replaces. The last exchange always stays."""
STEP = 0.25
"""The smallest part of the room that a summary must replace."""
LONGEST = 1 / 8
"""The largest part of the room that a summary may take."""
LEAST_TOKENS = 200
"""The smallest limit of a summary. A context with less room has none."""
MAX_ROUNDS = 8
"""Summaries after one turn. A conversation may be several times as long as the context of its new model."""
MARGIN = 5.0
"""Seconds for which an attempt keeps its claim after its time limit, so that it can store what it has."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SummaryPlan:
    """A summary to make: its place, the rows that it is made of, and what is stored with it (`Summary`)."""

    through: int
    rows: Sequence[Message]
    calls: frozenset[str]
    messages: int


def is_full(prompt: Prompt | None) -> bool:
    """Returns True if a summary should take the place of older messages of the prompt."""
    return prompt is not None and prompt.fullness > FULL and _longest(prompt.room) >= LEAST_TOKENS


def _longest(room: int) -> int:
    return int(room * LONGEST)


class SummaryJob:
    """A side job after the end of `task`, on whose branch it works."""

    def __init__(self, resources: Resources, context: ExecutorContext, task: Task) -> None:
        self._resources = resources
        self._context = context
        self._task = task
        self._limit = resources.settings.chat_summary_timeout

    async def run(self) -> None:
        """Makes summaries until the conversation leaves room for more messages, or one attempt fails."""
        for _ in range(MAX_ROUNDS):
            if not await self._make_next():
                return

    async def _make_next(self) -> bool:
        task = self._task
        async with self._resources.database.connection() as c:
            # read before the rows, so that the rows have the result of what has ended
            running = await operations.unended_operations(c, task.session_id)
            history = await read_history(c, task, summarised=True)
            begun = await summaries.newest_attempt(c, task.session_id, history.places)
            choice = await choice_of(c, task)
            told = await instructions_of(c, task.session_id)
        by = self._context.summarising(task, choice, told)
        tokens = min(self._resources.settings.chat_summary_tokens, _longest(by.room))
        plan = plan_summary(history, begun, frozenset(one.work.tool_call_id for one in running), by)
        if plan is None or tokens < LEAST_TOKENS:
            return False
        async with self._resources.database.transaction() as c:
            claim = await summaries.claim_summary(
                c, task.session_id, plan.through,
                calls=plan.calls, messages=plan.messages, seconds=self._limit + MARGIN,
            )  # fmt: skip
        return claim is not None and await self._make(claim, plan, by, tokens)

    async def _make(self, claim: SummaryClaim, plan: SummaryPlan, by: SummaryModel, tokens: int) -> bool:
        prompt = by.maker.prompt_of([*plan.rows, request_for_summary(tokens)])
        call, text, outcome = SummaryCall(by.maker.model, tokens), None, "made"
        files = self._context.prompt_files(self._resources, self._task)
        try:
            async with asyncio.timeout(self._limit), files.loaded(prompt) as loaded:
                text = await call.run(loaded)
        except (ProviderError, NoSummary, TimeoutError) as error:
            outcome = "too_late" if isinstance(error, TimeoutError) else "failed"
            reason = error.code if isinstance(error, ProviderError) else str(error) or "it took too long"
            about = {"attempt": claim.attempt, "model": by.maker.id, "error": reason}
            logger.warning("a conversation was not summarised; it is trimmed", extra=about)
        except asyncio.CancelledError:
            self._context.metrics.count_summary("cancelled")
            with suppress(Unavailable):  # the claim lapses
                async with self._ending(claim, by, call) as c:
                    await summaries.release_claim(c, claim)
            raise
        async with self._ending(claim, by, call) as c:
            stored = await summaries.end_attempt(c, claim, text)
        self._context.metrics.count_summary(outcome if stored else "lost")
        return stored and text is not None

    @asynccontextmanager
    async def _ending(self, claim: SummaryClaim, by: SummaryModel, call: SummaryCall) -> AsyncIterator[Connection]:
        """Opens the transaction that ends an attempt. It stores what the call has cost."""
        async with self._resources.database.transaction() as c:
            await sessions.lock_session(c, claim.session_id)  # first, as every transaction that writes rows of tasks
            yield c
            if call.usage.total_tokens:
                await tasks.add_later_usage(c, self._task.id, by.maker.priced(call.usage))


def plan_summary(
    history: History, begun: Summary | None, running: frozenset[str], by: SummaryModel
) -> SummaryPlan | None:
    """Returns the next summary of a conversation, or None if it needs none, or none can be made now.

    `begun` is the last summary that was begun and is not made. It is tried again; if it was given up, the next one
    comes a STEP later. `running` are the calls of operations that are not over.
    """
    exchanges = exchanges_of(history.newer)
    first = _tokens(history.prompt_rows(()))
    sizes = [_tokens(exchange) for exchange in exchanges]
    if first + sum(sizes) <= FULL * by.room or len(exchanges) < 2:
        return None
    ends = [exchange[-1].sequence for exchange in exchanges]
    count = _exchanges_to_replace(first, sizes, by)
    if sum(sizes[:count]) < STEP * by.room:
        return None
    if begun is not None and begun.through in ends[:-1]:
        before = ends.index(begun.through) + 1
        if not begun.given_up:
            count = min(before, count)  # its maker may have less room by now
        elif sum(sizes[before:count]) < STEP * by.room:
            return None
    return _plan_for(history, [row for exchange in exchanges[:count] for row in exchange], running)


def _exchanges_to_replace(first: int, sizes: Sequence[int], by: SummaryModel) -> int:
    """Returns how many of the exchanges the next summary replaces: at least one, as far as its maker can read them."""
    count, kept = len(sizes) - 1, sizes[-1]
    while count > 1 and kept + sizes[count - 1] <= KEPT * by.room:
        count -= 1
        kept += sizes[count]
    while count > 1 and first + sum(sizes[:count]) > FULL * by.makers_room:
        count -= 1
    return count


def _plan_for(history: History, replaced: list[Message], running: frozenset[str]) -> SummaryPlan:
    read = history.prompt_rows(replaced)
    named = {part.tool_call_id for row in read for part in row.parts if isinstance(part, ToolCallPart)}
    before = 0 if history.summary is None else history.summary.messages
    seen = {(row.task_id, row.role is Role.USER) for row in replaced if row.role is not Role.USER or row.is_shown}
    return SummaryPlan(replaced[-1].sequence, read, running & named, before + len(seen))


def _tokens(rows: Sequence[Message]) -> int:
    """Returns the tokens of rows as a part of a prompt."""
    if not rows:
        return 0
    return messages_tokens([message for message in to_prompt_messages(rows) if message.parts != (TextPart(GO_ON),)])

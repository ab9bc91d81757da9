"""Trimming of a prompt to a model's context. Messages in the middle are dropped first.

Kept longest, in this order: the system prompt and the tools; the newest step; the user's newest and first message;
newer steps of the running exchange; newer exchanges. A note replaces what was dropped.

Providers cache the beginning of a prompt, so it must stay the same from one request to the next. A cut therefore goes
down to half of the budget, and the next one comes when the budget is full again. Where the cuts are follows from the
messages alone: they are replayed from the first message on, as the requests of the past saw them. Nothing has to be
stored, and every executor, attempt and later turn finds the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from backend.chat.models import (
    FilePart,
    NewMessage,
    Part,
    PromptFile,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from executor.llm.files import file_tokens
from executor.llm.history import compact_json, cut, result_text

TOKENS_PER_MESSAGE = 6
"""Tokens that the frame around a message costs."""
SHORTEST_CUT = 200
"""Characters that a cut text keeps at least."""
KEPT_BY_A_CUT = 0.5
"""The part of the budget that the messages may still fill after a cut."""


def estimate_tokens(text: str) -> int:
    """Estimates the tokens of a text, rather too high than too low: a third of its UTF-8 bytes.

    English prose has 4 to 5 bytes a token, code and JSON about 3. A Chinese, Japanese or Korean character has 3 bytes
    and takes a token or slightly less. A Cyrillic or Greek letter has 2 bytes, and two to three of them make a token.
    """
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // 3 + 1


def message_tokens(message: NewMessage) -> int:
    return TOKENS_PER_MESSAGE + sum(map(_part_tokens, message.parts))


def trim(messages: Sequence[NewMessage], budget_tokens: int) -> list[NewMessage]:
    """Returns the messages trimmed to the budget. They keep the properties that `executor.llm.history` lists.

    First it cuts single texts over half of the budget. Then it drops whole exchanges, the oldest first, but keeps the
    first question. Then it drops the first steps of the last exchange. Then it cuts the longest texts.
    """
    if sum(map(message_tokens, messages)) <= budget_tokens:
        return list(messages)
    shorter = [_bounded(message, budget_tokens // 2) for message in messages]
    kept = _without(shorter, _Window(shorter, budget_tokens).start())
    return _cut_texts(kept, budget_tokens)


class _Window:
    """The messages that are kept: the first one, and all from the place `start()` on, which moves in large steps.

    That place is the beginning of an exchange or of a step. If it is in the middle of an exchange, the question of the
    exchange is kept too.
    """

    def __init__(self, messages: Sequence[NewMessage], budget: int) -> None:
        self._messages = messages
        self._budget = budget
        self._sizes = [message_tokens(message) for message in messages]
        self._sums = [0, *accumulate(self._sizes)]
        self._questions = list(accumulate(_question_places(messages), max))
        self._note = message_tokens(NewMessage(Role.ASSISTANT, (TextPart(_note(1_000_000)),)))

    def start(self) -> int:
        """Replays the conversation. Returns the place of the first message that is kept after the first one."""
        start = 1
        for newest in range(1, len(self._messages)):
            if self._size(start, newest) > self._budget:
                start = self._advance(start, newest)
        return start

    def _size(self, start: int, newest: int) -> int:
        """Returns the tokens of the window up to `newest`."""
        size = self._sizes[0] + self._sums[newest + 1] - self._sums[start]
        question = self._questions[start]
        if 0 < question < start:
            size += self._sizes[question]
        return size + (2 * self._note if start > 1 else 0)

    def _advance(self, start: int, newest: int) -> int:
        """Returns a later place, from which on the window fills at most half of the budget if that can be."""
        goal = int(self._budget * KEPT_BY_A_CUT)
        question = self._questions[newest]
        for place in range(start + 1, question + 1):
            if self._questions[place] == place and self._size(place, newest) <= goal:
                return place
        start = max(start, question)
        if self._size(start, newest) <= self._budget:
            return start
        for place in range(max(start, question + 1) + 1, newest + 1):
            if self._messages[place].role is Role.ASSISTANT:
                start = place
                if self._size(place, newest) <= goal:
                    break
        return start


def _question_places(messages: Sequence[NewMessage]) -> Iterator[int]:
    return (place if message.role is Role.USER else 0 for place, message in enumerate(messages))


def _without(messages: Sequence[NewMessage], start: int) -> list[NewMessage]:
    """Returns the first message, then those from `start` on, with notes in place of the others."""
    if start <= 1:
        return list(messages)
    first, rest = messages[0], messages[start:]
    question = max(place for place in range(start + 1) if messages[place].role is Role.USER)
    if question == 0:
        return [_noted(first, start - 1), *rest]
    lead = [first, NewMessage(Role.ASSISTANT, (TextPart(_note(question - 1)),))]
    if question == start:
        return [*lead, *rest]
    return [*lead, _noted(messages[question], start - question - 1), *rest]


def _noted(question: NewMessage, count: int) -> NewMessage:
    return replace(question, parts=(TextPart(_note(count)), *question.parts)) if count else question


def _note(count: int) -> str:
    return f"[{count} earlier messages are left out here, to fit the model's context.]"


def _bounded(message: NewMessage, most: int) -> NewMessage:
    """Returns the message with each text cut to `most` tokens."""
    if message_tokens(message) <= most:
        return message
    parts = tuple(
        _cut(part, max(SHORTEST_CUT, len(_text_of(part)) * most // size))
        if (size := _part_tokens(part)) > most
        else part
        for part in message.parts
    )
    return replace(message, parts=parts)


def _cut_texts(messages: list[NewMessage], budget: int) -> list[NewMessage]:
    """Returns the messages with long texts cut to one length, which shrinks until the messages fit the budget."""
    limit = max((len(_text_of(part)) for message in messages for part in message.parts), default=0)
    shorter = messages
    while limit > SHORTEST_CUT and sum(map(message_tokens, shorter)) > budget:
        limit = max(SHORTEST_CUT, limit * 3 // 4)
        shorter = [replace(message, parts=tuple(_cut(part, limit) for part in message.parts)) for message in messages]
    return shorter


def _cut(part: Part, limit: int) -> Part:
    """Cuts a text or an output. The input of a call and signed reasoning must stay whole."""
    if isinstance(part, TextPart):
        return replace(part, text=cut(part.text, limit))
    if isinstance(part, ToolResultPart) and len(text := result_text(part)) > limit:
        return replace(part, output=cut(text, limit))
    return part


def _text_of(part: Part) -> str:
    match part:
        case TextPart() | ReasoningPart():
            return part.text
        case ToolCallPart():
            return compact_json(part.input)
        case ToolResultPart():
            return result_text(part)
        case _:
            return ""


def _part_tokens(part: Part) -> int:
    if isinstance(part, PromptFile):
        return part.tokens
    if isinstance(part, FilePart):
        return file_tokens(part)
    extra = part.redacted or part.signature or "" if isinstance(part, ReasoningPart) else ""
    if isinstance(part, ReasoningPart | ToolCallPart) and part.provider is not None and part.provider.data:
        extra += compact_json(part.provider.data)
    return estimate_tokens(_text_of(part)) + (estimate_tokens(extra) if extra else 0)

"""A prompt made to fit a model's context: what is in the middle goes first.

Kept as long as possible, in this order: the system prompt and the tools; the newest step; the user's newest and first
message; the newer steps of the running exchange; newer exchanges before older ones. Where something went, a line says
so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.chat.models import NewMessage, Part, ReasoningPart, Role, TextPart, ToolCallPart, ToolResultPart
from executor.llm.history import compact_json, cut, result_text
from executor.llm.model import Prompt, ToolSpec

TOKENS_PER_MESSAGE = 6
MIN_BUDGET = 500
SHORTEST_CUT = 200


def estimate_tokens(text: str) -> int:
    """About how many tokens a text is, rather too many than too few: a third of its UTF-8 bytes.

    English prose has 4 to 5 bytes a token, code and JSON about 3; a Chinese, Japanese or Korean character has 3 bytes
    and is a token or a little less; Cyrillic and Greek letters have 2 bytes and two to three make a token.
    """
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // 3 + 1


def message_tokens(message: NewMessage) -> int:
    return TOKENS_PER_MESSAGE + sum(map(_part_tokens, message.parts))


def fit(prompt: Prompt, context_tokens: int) -> Prompt:
    """The prompt with messages left out until it fits into the context together with the answer."""
    fixed = estimate_tokens(prompt.system) + sum(map(_tool_tokens, prompt.tools)) + prompt.max_output_tokens
    return replace(prompt, messages=trim(prompt.messages, max(context_tokens - fixed, MIN_BUDGET)))


def trim(messages: Sequence[NewMessage], budget_tokens: int) -> list[NewMessage]:
    """The messages (as `to_prompt_messages` makes them) within the budget; what held of them holds of the result.

    First the oldest exchanges after the first question go, whole; then the first steps of the last exchange; then the
    longest texts are cut.
    """
    if sum(map(message_tokens, messages)) <= budget_tokens:
        return list(messages)
    first, *rest = messages
    exchanges = _exchanges(rest)
    budget = budget_tokens - message_tokens(first)
    sizes = [sum(map(message_tokens, exchange)) for exchange in exchanges]
    gone = 0
    while gone < len(exchanges) - 1 and sum(sizes[gone:]) > budget:
        gone += 1
    if gone == 0:
        return _cut_texts(_drop_steps(list(messages), budget_tokens), budget_tokens)
    left_out = sum(map(len, exchanges[:gone]))
    kept = [message for exchange in exchanges[gone:-1] for message in exchange]
    last = _drop_steps(exchanges[-1], budget - sum(sizes[gone:-1]))
    note = NewMessage(Role.ASSISTANT, (TextPart(_note(left_out)),))
    return _cut_texts([first, note, *kept, *last], budget_tokens)


def _note(count: int) -> str:
    return f"[{count} earlier messages are left out here, to fit the model's context.]"


def _exchanges(messages: Sequence[NewMessage]) -> list[list[NewMessage]]:
    """Each begins with a user's message; the first may be what still answers the first question."""
    exchanges: list[list[NewMessage]] = []
    for message in messages:
        if message.role is Role.USER or not exchanges:
            exchanges.append([])
        exchanges[-1].append(message)
    return exchanges


def _drop_steps(exchange: list[NewMessage], budget: int) -> list[NewMessage]:
    """The exchange (a question, then steps) without its first steps, as far as is needed; the newest step stays."""
    question, *answer = exchange
    steps: list[list[NewMessage]] = []
    for message in answer:
        if message.role is not Role.TOOL or not steps:
            steps.append([])
        steps[-1].append(message)
    sizes = [sum(map(message_tokens, step)) for step in steps]
    room = budget - message_tokens(question)
    gone = 0
    while gone < len(steps) - 1 and sum(sizes[gone:]) > room:
        gone += 1
    if gone == 0:
        return exchange
    note = TextPart(_note(sum(map(len, steps[:gone]))))
    return [replace(question, parts=(note, *question.parts)), *(message for step in steps[gone:] for message in step)]


def _cut_texts(messages: list[NewMessage], budget: int) -> list[NewMessage]:
    """The messages with their longest texts cut to one length, the greatest with which they fit."""
    limit = max((len(_text_of(part)) for message in messages for part in message.parts), default=0)
    shorter = messages
    while limit > SHORTEST_CUT and sum(map(message_tokens, shorter)) > budget:
        limit = max(SHORTEST_CUT, limit * 3 // 4)
        shorter = [replace(message, parts=tuple(_cut(part, limit) for part in message.parts)) for message in messages]
    return shorter


def _cut(part: Part, limit: int) -> Part:
    """Texts and outputs can be cut; the input of a call and signed reasoning cannot."""
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
    extra = part.redacted or part.signature or "" if isinstance(part, ReasoningPart) else ""
    return estimate_tokens(_text_of(part)) + (estimate_tokens(extra) if extra else 0)


def _tool_tokens(tool: ToolSpec) -> int:
    return estimate_tokens(tool.name + tool.description) + estimate_tokens(compact_json(tool.parameters))

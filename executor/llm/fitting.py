"""Fitting of a prompt into a model's context. The call that a prompt is about stays in it, with its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backend.chat.models import NewMessage, Role, ToolCallPart, ToolResultPart
from executor.llm.history import call_ids, compact_json, cut, result_text
from executor.llm.model import Prompt, ToolSpec
from executor.llm.trimming import SHORTEST_CUT, estimate_tokens, message_tokens, trim

MIN_BUDGET = 500
"""Tokens for the messages even if the rest of the context leaves less."""
SHARE = 4
"""If trimming leaves out the kept call and its result, each is put back with at most a fourth of the budget."""
INPUT_LEFT_OUT = "The input of this call is left out here, to fit the model's context."


def fit(prompt: Prompt, context_tokens: int, told: int | None = None) -> Prompt:
    """Returns the prompt with messages trimmed so that prompt and answer fit into `context_tokens`.

    `told` is the room for messages that the server has reported (`Model.room`).
    """
    room = max(MIN_BUDGET, context_tokens - fixed_tokens(prompt) - prompt.max_output_tokens)
    room = room if told is None else min(room, told)
    return replace(prompt, messages=trimmed(prompt, room), room=room, wanted=messages_tokens(prompt.messages))


def trimmed(prompt: Prompt, budget_tokens: int) -> list[NewMessage]:
    """Returns the prompt's messages trimmed to the budget.

    If trimming leaves out `prompt.kept_call`, it is put back before the newest user message.
    """
    shorter, pair = trim(prompt.messages, budget_tokens), prompt.kept_call
    if len(pair) < 2 or _has_result(shorter, pair[1]):
        return shorter
    pair = _shortened(pair, budget_tokens // SHARE)
    shorter = trim(prompt.messages, max(1, budget_tokens - messages_tokens(pair)))
    return shorter if _has_result(shorter, pair[1]) else _with_pair(shorter, pair)  # the second cut may have kept them


def messages_tokens(messages: Sequence[NewMessage]) -> int:
    return sum(map(message_tokens, messages))


def fixed_tokens(prompt: Prompt) -> int:
    """Returns the tokens of the system prompt and the tools."""
    return estimate_tokens(prompt.system) + sum(map(_tool_tokens, prompt.tools))


def _tool_tokens(tool: ToolSpec) -> int:
    return estimate_tokens(tool.name + tool.description) + estimate_tokens(compact_json(tool.parameters))


def _has_result(messages: Sequence[NewMessage], wanted: NewMessage) -> bool:
    (result,) = (part for part in wanted.parts if isinstance(part, ToolResultPart))
    found = (part for message in messages for part in message.parts if isinstance(part, ToolResultPart))
    return any((part.tool_call_id, part.tool_name) == (result.tool_call_id, result.tool_name) for part in found)


def _shortened(pair: Sequence[NewMessage], tokens: int) -> list[NewMessage]:
    """Returns the call and its result with at most `tokens` tokens each, as far as texts can be cut."""
    call, result = pair
    if message_tokens(call) > tokens:
        parts = tuple(
            replace(part, input={"note": INPUT_LEFT_OUT}) if isinstance(part, ToolCallPart) else part
            for part in call.parts
        )
        call = replace(call, parts=parts)
    limit = max((len(result_text(part)) for part in result.parts if isinstance(part, ToolResultPart)), default=0)
    shorter = result
    while message_tokens(shorter) > tokens and limit > SHORTEST_CUT:
        limit = max(SHORTEST_CUT, limit * 3 // 4)
        parts = tuple(
            replace(part, output=cut(result_text(part), limit)) if isinstance(part, ToolResultPart) else part
            for part in result.parts
        )
        shorter = replace(result, parts=parts)
    return [call, shorter]


def _with_pair(messages: Sequence[NewMessage], pair: Sequence[NewMessage]) -> list[NewMessage]:
    """Puts the pair before the newest user message, or after it if no message comes before that one.

    They keep the properties that `executor.llm.history` lists.
    """
    call, result = _with_free_id(pair, call_ids(messages))
    newest = max(place for place, message in enumerate(messages) if message.role is Role.USER)
    if newest == 0:
        return [messages[0], call, result, *messages[1:]]
    before, after = list(messages[:newest]), messages[newest:]
    if before[-1].role is Role.ASSISTANT:
        call = NewMessage(Role.ASSISTANT, (*before.pop().parts, *call.parts))
    return [*before, call, result, *after]


def _with_free_id(pair: Sequence[NewMessage], used: set[str]) -> list[NewMessage]:
    """Returns the pair with an id that no other call has: a provider may give an id to two calls of a session."""
    (id,) = call_ids(pair)
    while id in used:
        id = f"{id[:56]}_again"
    return renamed(pair, id)


def renamed(pair: Sequence[NewMessage], id: str) -> list[NewMessage]:
    """Returns a call and its result with another id."""
    return [
        replace(
            message,
            parts=tuple(
                replace(part, tool_call_id=id) if isinstance(part, ToolCallPart | ToolResultPart) else part
                for part in message.parts
            ),
        )
        for message in pair
    ]

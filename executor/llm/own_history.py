"""Writes a history for one model. A provider's data is sent only to the model that made it.

A call keeps its id if this model made it. Other calls get an id of nine letters and digits, which every provider
accepts (Mistral accepts no others).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import IntEnum

from backend.chat.models import (
    FilePart,
    Json,
    NewMessage,
    Part,
    PromptFile,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from executor.llm.files import named
from executor.llm.history import NOTE_OPENS, compact_json, result_text

_CALLS_NOTE = "From the server: a tool that the assistant called, and what the tool returned."
_TAG = re.compile(r"</?\s*tool_call", re.IGNORECASE)


class HistoryForm(IntEnum):
    """The forms of a history, from the fullest to one that every server accepts."""

    OWN = 0
    """With the data that the model's provider wants back."""
    PLAIN = 1
    """Without that data and without reasoning."""
    TEXT = 2
    """Without tool calls, too: a call and its result become a text of the user."""


def written_for(messages: Sequence[NewMessage], owner: str, form: HistoryForm) -> list[NewMessage]:
    """Returns messages for the model that `owner` names (`provider_data.made_by`).

    `messages` have the properties that `executor.llm.history` lists; the result has them too, except that the form TEXT
    has no calls. A call or a part of reasoning has `provider` only if it belongs to the model.
    """
    if form is HistoryForm.TEXT:
        return list(_as_text(messages))
    ids = _WireIds()
    return [replace(message, parts=tuple(_parts(message.parts, owner, form, ids))) for message in messages]


def conversation_of(messages: Sequence[NewMessage]) -> str | None:
    """Returns a key by which to remember a conversation: the id of its first call. None without calls."""
    return next((part.tool_call_id for message in messages for part in message.parts if _is_call(part)), None)  # type: ignore[union-attr]


def has_reasoning(messages: Sequence[NewMessage]) -> bool:
    return any(isinstance(part, ReasoningPart) for message in messages for part in message.parts)


def one_call_each(messages: Sequence[NewMessage]) -> list[NewMessage]:
    """Returns the messages with one call in each, followed by its result."""
    split: list[NewMessage] = []
    results: dict[str, NewMessage] = {}
    for message in reversed(messages):
        if message.role is Role.TOOL:
            results[message.parts[0].tool_call_id] = message  # type: ignore[union-attr]
            continue
        calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
        said = tuple(part for part in message.parts if not isinstance(part, ToolCallPart))
        pairs: list[NewMessage] = []
        for number, call in enumerate(calls):
            pairs += [NewMessage(message.role, (*(said if number == 0 else ()), call)), results[call.tool_call_id]]
        split[:0] = pairs or [message]
    return split


class _WireIds(dict[str, str]):
    """Call ids on the wire, by the ids of the neutral history."""

    def __init__(self) -> None:
        super().__init__()
        self._used: set[str] = set()

    def choose(self, neutral: str, own: Json) -> str:
        """Returns the provider's own id if it is free, else a new one."""
        chosen, number = own, 0
        while not isinstance(chosen, str) or chosen in self._used:
            chosen = hashlib.sha256(f"{neutral} {number}".encode("utf-8", "replace")).hexdigest()[:9]
            number += 1
        self._used.add(chosen)
        self[neutral] = chosen
        return chosen


def _is_call(part: Part) -> bool:
    return isinstance(part, ToolCallPart)


def _parts(parts: Sequence[Part], owner: str, form: HistoryForm, ids: _WireIds) -> Iterator[Part]:
    for part in parts:
        match part:
            case ReasoningPart():
                if form is HistoryForm.OWN and (part.provider is None or part.provider.made_by == owner):
                    yield part
            case ToolCallPart():
                own = form is HistoryForm.OWN and part.provider is not None and part.provider.made_by == owner
                provider = part.provider if own else None
                own_id = provider.data.get("id") if provider is not None else None
                yield replace(part, tool_call_id=ids.choose(part.tool_call_id, own_id), provider=provider)
            case ToolResultPart():
                output = _with_wire_id(part.output, ids)
                yield replace(part, tool_call_id=ids[part.tool_call_id], output=output)
            case TextPart() if part.text.startswith(NOTE_OPENS):
                yield replace(part, text=re.sub(r"[\w-]+", lambda word: ids.get(word[0], word[0]), part.text))
            case FilePart() | PromptFile(data=b""):
                yield named(part)
            case _:
                yield part


def _with_wire_id(output: Json, ids: dict[str, str]) -> Json:
    """Returns the output of a tool, which may name the call of an operation."""
    named = output.get("tool_call_id") if isinstance(output, dict) else None
    return {**output, "tool_call_id": ids[named]} if isinstance(named, str) and named in ids else output


def _as_text(messages: Sequence[NewMessage]) -> Iterator[NewMessage]:
    merged: list[NewMessage] = []
    inputs: dict[str, Json] = {}
    for message in messages:
        parts: list[Part] = []
        role = message.role
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                inputs[part.tool_call_id] = part.input
            elif isinstance(part, ToolResultPart):
                role = Role.USER
                parts.append(TextPart(_call_as_text(part, inputs.get(part.tool_call_id))))
            elif isinstance(part, TextPart | FilePart | PromptFile):
                parts.append(part if isinstance(part, PromptFile) and part.data else named(part))
        if not parts:
            continue
        if merged and merged[-1].role is role:
            merged[-1] = NewMessage(role, (*merged[-1].parts, *parts))
        else:
            merged.append(NewMessage(role, tuple(parts)))
    yield from merged


def _call_as_text(result: ToolResultPart, given: Json) -> str:
    inside = _TAG.sub("(tool_call", f"{result.tool_name} {compact_json(given)}\n{result_text(result)}")
    return f'<tool_call note="{_CALLS_NOTE}">\n{inside}\n</tool_call>'

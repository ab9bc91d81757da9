"""Stored messages as clients see them (`format=rows`): our parts, and beside them the fields of OpenAI's messages.

AutoGPT's page reads the latter: `content`, `tool_calls`, `tool_call_id`, `name`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

import orjson

from backend.chat.models import (
    ContextPart,
    FilePart,
    Json,
    Message,
    MetadataPart,
    NotePart,
    Part,
    ReasoningPart,
    Role,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from backend.chat.part_json import parts_json
from backend.chat.protocol.chunks import MAX_OUTPUT_CHARS
from backend.chat.protocol.chunks_from_rows import answered_json, file_json, usage_json
from backend.chat.protocol.tool_outputs import history_output, shown_output
from backend.ids import FileId, TaskId

_HIDDEN = (ContextPart, NotePart, MetadataPart)


def message_rows(
    messages: Sequence[Message],
    most: int = MAX_OUTPUT_CHARS,
    *,
    used: Mapping[tuple[TaskId, int], Usage] = MappingProxyType({}),
    links: Mapping[FileId, str] = MappingProxyType({}),
) -> list[Json]:
    """Returns messages as clients see them, without page context, notes and a provider's opaque reasoning data.

    Outputs of tools are cut to `most` characters. `used` has the tokens of each step by its
    task, `links` addresses of files that need no token.
    """
    return [
        _message_row(message, most, links) | _used_in(used.get((message.task_id, message.step)), message)
        for message in messages
        if _shown(message)
    ]


def _used_in(used: Usage | None, message: Message) -> dict[str, Json]:
    """Returns the tokens, the model and the cost of a model's response. Empty for other messages."""
    if used is None or message.role is not Role.ASSISTANT:
        return {}
    return {"usage": usage_json(used), **answered_json(used)}


def _in_utc(moment: datetime) -> str:
    """Formats a time as pydantic formats the other times of a response."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _shown(message: Message) -> bool:
    return not all(map(_is_hidden, message.parts))


def _is_hidden(part: Part) -> bool:
    """Reasoning without a text is only there because its provider wants it back."""
    return isinstance(part, _HIDDEN) or (isinstance(part, ReasoningPart) and not part.text)


def _shown_part(part: Part, task_id: TaskId, most: int) -> Part:
    if isinstance(part, ReasoningPart):
        return ReasoningPart(part.text)
    if isinstance(part, ToolResultPart):
        return replace(part, output=history_output(part, task_id, most))
    return replace(part, provider=None) if isinstance(part, ToolCallPart) else part


def _message_row(message: Message, most: int, links: Mapping[FileId, str]) -> Json:
    parts = [_shown_part(part, message.task_id, most) for part in message.parts if not _is_hidden(part)]
    result = next((part for part in parts if isinstance(part, ToolResultPart)), None)
    calls = [_tool_call(part) for part in parts if isinstance(part, ToolCallPart)]
    return {
        "id": message.shown_id if message.role is Role.USER else f"{message.session_id}-{message.sequence}",
        "sequence": message.sequence,
        "role": message.role.value,
        "content": message.text if result is None else _json_text(result.output),
        "name": result.tool_name if result is not None else None,
        "tool_calls": calls or None,
        "tool_call_id": result.tool_call_id if result is not None else None,
        "parts": [one for part in parts for one in _parts_json(part, links)],
        "metadata": message.metadata,
        "message_id": message.message_id,
        "task_id": message.task_id,
        "created_at": _in_utc(message.created_at),
    }


def _parts_json(part: Part, links: Mapping[FileId, str]) -> list[Json]:
    if isinstance(part, FilePart):
        return [file_json(part, links) | {"file_id": part.file_id, "size": part.size}]
    return parts_json([part])


def _tool_call(call: ToolCallPart) -> Json:
    """Returns a call as in OpenAI's chat completions. `arguments` is text: JSON, unless the model wrote none."""
    return {
        "id": call.tool_call_id,
        "type": "function",
        "function": {"name": call.tool_name, "arguments": _json_text(shown_output(call.input))},
    }


def _json_text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()

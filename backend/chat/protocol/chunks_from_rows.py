"""Chunks made from rows: the committed steps of a task, and its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from backend.chat.models import (
    AnswerEnd,
    DataPart,
    FilePart,
    Json,
    Message,
    NewMessage,
    Part,
    ReasoningPart,
    Role,
    SourcePart,
    Task,
    TaskStatus,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from backend.chat.outcomes import Operation, Progress
from backend.chat.part_json import parts_json
from backend.chat.protocol.chunks import (
    Abort,
    Chunk,
    Data,
    ErrorChunk,
    Finish,
    FinishReason,
    FinishStep,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceUrl,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
)
from backend.chat.protocol.tool_outputs import call_chunk, output_chunk
from backend.ids import FileId

_REASONS: dict[TaskStatus, FinishReason] = {
    TaskStatus.COMPLETED: "stop",
    TaskStatus.FAILED: "error",
    TaskStatus.CANCELLED: "other",
}


def terminal_chunks(task: Task, *, step_open: bool, taken: Sequence[Message] = ()) -> list[Chunk]:
    """Returns the chunks that end the stream of an ended task, whose parts are closed. `finish` is always the last.

    `taken` are messages that were stored with its end (`EndedTask`).
    """
    chunks: list[Chunk] = [*([FinishStep()] if step_open else []), *steering_chunks(taken)]
    if task.status is TaskStatus.FAILED and task.error is not None:
        chunks.append(Data("error", {"code": task.error.code, "message": task.error.message}))
        chunks.append(ErrorChunk(task.error.message))
    elif task.status is TaskStatus.CANCELLED:
        chunks.append(Abort())
    reason = _REASONS[task.status]
    metadata: dict[str, Json] = {"status": task.status.value, "usage": usage_json(task.usage)}
    metadata |= answered_json(task.usage)
    if task.status is TaskStatus.COMPLETED and task.answer_end is not None:
        reason = task.answer_end.reason
        metadata |= _end_json(task.answer_end)
    chunks.append(Finish(reason, metadata))
    return chunks


def _end_json(end: AnswerEnd) -> dict[str, Json]:
    """Returns how an answer ended as metadata, like the history's. Empty for an ordinary end."""
    shown: dict[str, Json] = {} if end.reason == "stop" else {"finishReason": end.reason}
    return shown | ({} if end.explanation is None else {"explanation": end.explanation})


def progress_chunk(operation: Operation, progress: Progress) -> Data:
    """Returns the progress of an operation. It replaces the progress before it in the message."""
    known = {"percent": progress.percent, "message": progress.message}
    return Data(
        "progress", {name: value for name, value in known.items() if value is not None}, id=operation.work.tool_call_id
    )


def whole_message(task: Task, rows: Sequence[Message | NewMessage]) -> list[Chunk]:
    """Returns the stream of an ended task, from `start` to `finish`, made from the rows that it wrote."""
    chunks: list[Chunk] = [Start(task.message_id), *step_chunks(rows)]
    open_steps = sum(isinstance(chunk, StartStep) - isinstance(chunk, FinishStep) for chunk in chunks)
    return [*chunks, *terminal_chunks(task, step_open=open_steps > 0)]


def usage_json(usage: Usage) -> dict[str, Json]:
    """Returns usage under the names of the AI SDK."""
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_tokens,
    }


def answered_json(usage: Usage) -> dict[str, Json]:
    """Returns the model that answered, and the cost by currency, as far as they are known."""
    shown: dict[str, Json] = {} if usage.model is None else {"model": usage.model}
    return shown | ({"cost": cost_json(usage)} if usage.cost else {})


def cost_json(usage: Usage) -> dict[str, Json]:
    """Returns the cost by currency, rounded to a billionth."""
    return {currency: round(amount, 9) for currency, amount in usage.cost.items()}


def step_chunks(rows: Sequence[Message | NewMessage]) -> Iterator[Chunk]:
    """Yields the chunks of committed steps. The last step stays open if one of its calls has no result."""
    open_calls: set[str] = set()
    step, is_open = 0, False
    for row in rows:
        if isinstance(row, Message) and row.steered:
            if is_open:
                yield FinishStep()
                is_open = False
            yield from steering_chunks([row])
        elif row.role is Role.ASSISTANT:
            if is_open:
                yield FinishStep()
            step, is_open = step + 1, True
            yield StartStep()
            yield from _part_chunks(row.parts, step)
            open_calls |= {part.tool_call_id for part in row.parts if isinstance(part, ToolCallPart) and part.readable}
        elif row.role is Role.TOOL:
            for part in row.parts:
                if isinstance(part, ToolResultPart) and part.tool_call_id in open_calls:
                    open_calls.discard(part.tool_call_id)
                    yield output_chunk(part)
    if is_open and not open_calls:
        yield FinishStep()


def steering_chunks(taken: Iterable[Message]) -> list[Chunk]:
    """Returns the chunks that show user messages where the running turn has taken them in. Notes are not shown."""
    return [steering_chunk(row) for row in taken if row.is_shown]


def steering_chunk(row: Message, links: Mapping[FileId, str] = MappingProxyType({})) -> Data:
    """Returns a user message as a part of the answer that took it in. A later one with the same id replaces it."""
    return Data("steering", user_message(row, links), id=row.shown_id)


def file_json(part: FilePart, links: Mapping[FileId, str] = MappingProxyType({})) -> Json:
    """Returns a file as the AI SDK's FileUIPart. A link that needs no token stands in `providerMetadata`."""
    shown = {"type": "file", "mediaType": part.media_type, "filename": part.filename, "url": part.url}
    link = links.get(part.file_id)
    return shown if link is None else shown | {"providerMetadata": {"copilot": {"link": link, "size": part.size}}}


def user_message(row: Message, links: Mapping[FileId, str] = MappingProxyType({})) -> Json:
    """Returns a user message as a UIMessage. `links` lead to files."""
    parts: list[Json] = [file_json(file, links) for file in row.files]
    if row.text:
        parts.append({"type": "text", "text": row.text})
    parts += parts_json([part for part in row.parts if isinstance(part, DataPart)])
    message = {"id": row.shown_id, "role": "user", "parts": parts}
    return message if row.metadata is None else message | {"metadata": row.metadata}


def _part_chunks(parts: Iterable[Part], step: int) -> Iterator[Chunk]:
    for n, part in enumerate(parts):
        if isinstance(part, TextPart):
            id = f"t{step}.{n}"
            yield from (TextStart(id), TextDelta(id, part.text), TextEnd(id))
        elif isinstance(part, ReasoningPart) and part.text:
            id = f"r{step}.{n}"
            yield from (ReasoningStart(id), ReasoningDelta(id, part.text), ReasoningEnd(id))
        elif isinstance(part, SourcePart):
            yield SourceUrl(part.source_id, part.url, part.title)
        elif isinstance(part, DataPart):
            yield Data(part.name, part.data, part.id)
        elif isinstance(part, ToolCallPart):
            yield call_chunk(part)

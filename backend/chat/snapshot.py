"""Chunks made from what Postgres knows: a task's committed steps, and its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from backend.chat.chunks import (
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
from backend.chat.models import (
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
from backend.chat.outputs import call_chunk, output_chunk

_REASONS: dict[TaskStatus, FinishReason] = {
    TaskStatus.COMPLETED: "stop",
    TaskStatus.FAILED: "error",
    TaskStatus.CANCELLED: "other",
}


def terminal_chunks(task: Task, *, step_open: bool, reason: FinishReason | None = None) -> list[Chunk]:
    """How the stream of an ended task ends, after its open parts were closed. `finish` is always the last."""
    chunks: list[Chunk] = [FinishStep()] if step_open else []
    if task.status is TaskStatus.FAILED and task.error is not None:
        chunks.append(Data("error", {"code": task.error.code, "message": task.error.message}))
        chunks.append(ErrorChunk(task.error.message))
    elif task.status is TaskStatus.CANCELLED:
        chunks.append(Abort())
    elif reason is None:
        reason = "stop"
    if task.status is not TaskStatus.COMPLETED:
        reason = _REASONS[task.status]
    metadata: dict[str, Json] = {"status": task.status.value, "usage": usage_json(task.usage)}
    chunks.append(Finish(reason or "stop", metadata))
    return chunks


def progress_chunk(operation: Operation, progress: Progress) -> Data:
    """Takes the place of the one before it; one that ends with its message."""
    known = {"percent": progress.percent, "message": progress.message}
    return Data(
        "progress", {name: value for name, value in known.items() if value is not None}, id=operation.work.tool_call_id
    )


def whole_message(task: Task, rows: Sequence[Message | NewMessage]) -> list[Chunk]:
    """The stream of an ended task, from `start` to `finish`, made from what it has said alone."""
    chunks: list[Chunk] = [Start(task.message_id), *step_chunks(rows)]
    open_steps = sum(isinstance(chunk, StartStep) - isinstance(chunk, FinishStep) for chunk in chunks)
    return [*chunks, *terminal_chunks(task, step_open=open_steps > 0)]


def usage_json(usage: Usage) -> dict[str, Json]:
    """Usage as clients see it, in the AI SDK's words."""
    return {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "reasoningTokens": usage.reasoning_tokens,
        "cachedInputTokens": usage.cached_tokens,
    }


def step_chunks(rows: Sequence[Message | NewMessage]) -> Iterator[Chunk]:
    """The chunks of committed steps. The last one stays open when one of its calls has no result."""
    open_calls: set[str] = set()
    step = 0
    for row in rows:
        if row.role is Role.ASSISTANT:
            if step:
                yield FinishStep()
            step += 1
            yield StartStep()
            yield from _spoken(row.parts, step)
            open_calls |= {part.tool_call_id for part in row.parts if isinstance(part, ToolCallPart) and part.readable}
        elif row.role is Role.TOOL:
            for part in row.parts:
                if isinstance(part, ToolResultPart) and part.tool_call_id in open_calls:
                    open_calls.discard(part.tool_call_id)
                    yield output_chunk(part)
    if step and not open_calls:
        yield FinishStep()


def _spoken(parts: Iterable[Part], step: int) -> Iterator[Chunk]:
    for n, part in enumerate(parts):
        if isinstance(part, TextPart):
            id = f"t{step}.{n}"
            yield from (TextStart(id), TextDelta(id, part.text), TextEnd(id))
        elif isinstance(part, ReasoningPart) and part.text:
            id = f"r{step}.{n}"
            yield from (ReasoningStart(id), ReasoningDelta(id, part.text), ReasoningEnd(id))
        elif isinstance(part, SourcePart):
            yield SourceUrl(part.source_id, part.url, part.title)
        elif isinstance(part, ToolCallPart):
            yield call_chunk(part)

"""AI SDK `UIMessage`s made from rows. The SDK makes the same ones from the stream, so a reload changes nothing.

All assistant and tool rows of one task make one message, whose id is the `messageId` of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, zip_longest
from types import MappingProxyType
from typing import TypeAlias

from backend.chat.models import (
    ANSWER_ID,
    DataPart,
    Json,
    Message,
    NewMessage,
    Part,
    ReasoningPart,
    Role,
    SourcePart,
    Task,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from backend.chat.outcomes import Operation, Progress
from backend.chat.part_json import parts_json
from backend.chat.protocol.chunks import MAX_OUTPUT_CHARS, Data, Finish
from backend.chat.protocol.chunks_from_rows import progress_chunk, steering_chunk, terminal_chunks, user_message
from backend.chat.protocol.tool_outputs import error_text, history_output
from backend.ids import FileId, TaskId

HistoryItem: TypeAlias = Message | NewMessage
_ShownOutput: TypeAlias = Callable[[ToolResultPart], Json]


@dataclass(frozen=True, slots=True)
class UITurn:
    """The messages of one task. `sequence` is that of its first row."""

    sequence: int
    messages: list[Json]


def ui_turns(
    rows: Sequence[Message],
    tasks: Mapping[TaskId, Task],
    silent: Mapping[int, Task] = MappingProxyType({}),
    operations: Mapping[TaskId, Operation] = MappingProxyType({}),
    *,
    answering_again: bool = False,
    answered_elsewhere: Collection[int] = (),
    most: int = MAX_OUTPUT_CHARS,
    links: Mapping[FileId, str] = MappingProxyType({}),
    feedback: Mapping[TaskId, Json] = MappingProxyType({}),
) -> list[UITurn]:
    """Returns the messages of `rows`, in order. Outputs of tools are cut to `most` characters. `links` lead to files.

    `feedback` is what callers think of answers, by task; it becomes a member of their metadata.

    The rows must be in order, and complete for each task except a running one. `tasks` must have the task of every row.

    A question shows one answer. The first of these counts: the answer in the rows after it; an answer without messages
    (`silent`, by the question's sequence); the answer of its own task. The last question shows none while it is
    answered again (`answering_again`), and neither does a question whose own task has its answer on another branch
    (`answered_elsewhere`, by sequence). The message of an operation (`operations`, by task) begins with its call.
    """
    shown: list[UITurn] = []
    turns = [(task_id, list(group)) for task_id, group in groupby(rows, key=lambda row: row.task_id)]
    for (task_id, group), (_, following) in zip_longest(turns, turns[1:], fillvalue=("", [])):
        answer_rows: list[HistoryItem] = [row for row in group if row.role is not Role.USER or row.steered]
        operation = operations.get(TaskId(task_id))
        if operation is not None:
            answer_rows = [*operation.messages, *answer_rows]
        asked = [user_message(row, links) for row in group if _is_question(row) and row.is_shown]
        shown.append(UITurn(group[0].sequence, asked))
        answered_again = _answers(following) or (answering_again and not following)
        question = group[-1].sequence
        unanswered = answered_again or (question in answered_elsewhere and question not in silent)
        if answer_rows or not unanswered:
            task = tasks[TaskId(task_id)]
            answer = _answer(task if answer_rows else silent.get(question, task), answer_rows, most, links)
            if (
                said := feedback.get(TaskId(answer["id"].removeprefix(ANSWER_ID)))
            ) is not None and "metadata" in answer:
                answer["metadata"]["feedback"] = said
            if operation is not None and operation.progress is not None:
                answer["parts"].insert(2, _progress_part(operation, operation.progress))  # after the step and its call
            if answer["parts"]:
                shown[-1].messages.append(answer)
    return shown


def _is_question(row: Message) -> bool:
    return row.role is Role.USER and not row.steered


def _answers(rows: Sequence[Message]) -> bool:
    return bool(rows) and not _is_question(rows[0])


def _answer(task: Task, answer_rows: Sequence[HistoryItem], most: int, links: Mapping[FileId, str]) -> Json:
    parts = list(_parts(answer_rows, partial(history_output, task_id=task.id, most=most), links))
    if not parts and task.answer_end is not None:  # the stream had a step, although the model said nothing
        parts.append({"type": "step-start"})
    message: dict[str, Json] = {"id": task.message_id, "role": "assistant", "parts": parts}
    if task.status.ended:
        for chunk in terminal_chunks(task, step_open=False):
            if isinstance(chunk, Data):
                parts.append({"type": chunk.type, "data": chunk.data})
            elif isinstance(chunk, Finish):
                message["metadata"] = chunk.metadata
    return message


def _progress_part(operation: Operation, progress: Progress) -> Json:
    chunk = progress_chunk(operation, progress)
    return {"type": chunk.type, "id": chunk.id, "data": chunk.data}


def _parts(
    answer_rows: Iterable[HistoryItem], shown_output: _ShownOutput, links: Mapping[FileId, str]
) -> Iterator[Json]:
    answer_rows = list(answer_rows)
    results = {p.tool_call_id: p for row in answer_rows for p in row.parts if isinstance(p, ToolResultPart)}
    for row in answer_rows:
        if isinstance(row, Message) and row.steered and row.is_shown:
            chunk = steering_chunk(row, links)
            yield {"type": chunk.type, "id": chunk.id, "data": chunk.data}
        elif row.role is Role.ASSISTANT:
            yield {"type": "step-start"}
            yield from _step(row.parts, results, shown_output)


def _step(parts: Iterable[Part], results: Mapping[str, ToolResultPart], shown_output: _ShownOutput) -> Iterator[Json]:
    for part in parts:
        if isinstance(part, TextPart):
            yield {"type": "text", "text": part.text, "state": "done"}
        elif isinstance(part, ReasoningPart) and part.text:
            yield {"type": "reasoning", "text": part.text, "state": "done"}
        elif isinstance(part, SourcePart | DataPart):
            yield from parts_json([part])  # kept in the SDK's own shape
        elif isinstance(part, ToolCallPart):
            yield _tool_part(part, results.get(part.tool_call_id), shown_output)


def _tool_part(call: ToolCallPart, result: ToolResultPart | None, shown_output: _ShownOutput) -> Json:
    part: dict[str, Json] = {
        "type": "dynamic-tool",
        "toolName": call.tool_name,
        "toolCallId": call.tool_call_id,
        "state": "input-available",
        "input": call.input,
        "providerExecuted": True,
    }
    if result is None:
        return part
    if result.is_error:
        return part | {"state": "output-error", "errorText": error_text(result)}
    return part | {"state": "output-available", "output": shown_output(result)}

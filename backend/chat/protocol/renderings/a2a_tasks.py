"""Tasks in the shapes of A2A 1.0, and the stream of a task as its updates, for agents that speak that protocol.

The shapes are the JSON form of `a2a.proto` 1.0 (https://a2a-protocol.org/latest/specification, 2026-11). An answer is
one artifact, ANSWER, whose text comes in pieces; everything else that happens is a status.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from backend.chat.models import (
    DataPart,
    FilePart,
    Json,
    Message,
    NewMessage,
    Role,
    Task,
    TaskError,
    TaskStatus,
    TextPart,
)
from backend.chat.protocol.chunks import ascii_json
from backend.chat.protocol.chunks_from_rows import answered_json, usage_json
from backend.chat.protocol.renderings.openai_chunks import chunks_of
from backend.chat.protocol.sse_frames import frame_without_id
from backend.ids import SessionId, TaskId

ANSWER = "answer"
"""The id of the artifact that holds the text of an answer."""
BETWEEN = "\n\n"
"""The text between two texts of an answer, for example before and after a call of a tool."""
STATES = {
    TaskStatus.QUEUED: "TASK_STATE_SUBMITTED",
    TaskStatus.RUNNING: "TASK_STATE_WORKING",
    TaskStatus.COMPLETED: "TASK_STATE_COMPLETED",
    TaskStatus.FAILED: "TASK_STATE_FAILED",
    TaskStatus.CANCELLED: "TASK_STATE_CANCELED",
}
_FAILED = "The answer failed."
_CALLS = ("tool-input-available", "tool-input-error")
_RESULTS = ("tool-output-available", "tool-output-error")


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids that all objects of a task have: its own, and that of its conversation."""

    task_id: TaskId
    context_id: SessionId

    @classmethod
    def of(cls, task: Task) -> Ids:
        return cls(task.id, task.session_id)

    def members(self) -> dict[str, Json]:
        return {"taskId": self.task_id, "contextId": self.context_id}

    def status(self, status: TaskStatus, at: datetime, error: Json = None) -> Json:
        """Returns a TaskStatus. `error` has the `code` and `message` of a task that failed, or is None."""
        shown: dict[str, Json] = {"state": STATES[status], "timestamp": _time(at)}
        if error is not None:
            shown["message"] = self.said(f"{self.task_id}-error", {"text": error["message"]})
            shown["message"]["metadata"] = {"code": error["code"]}
        return shown

    def said(self, id: str, part: Json) -> dict[str, Json]:
        """Returns a message of the agent."""
        return {"messageId": id, **self.members(), "role": "ROLE_AGENT", "parts": [part]}


def text_of(rows: Iterable[Message | NewMessage]) -> str:
    """Returns the text of an answer, whose messages are `rows`, as its stream has it."""
    said = (row.parts for row in rows if row.role is Role.ASSISTANT)
    return BETWEEN.join(part.text for parts in said for part in parts if isinstance(part, TextPart))


def task_json(task: Task, *, text: str = "", history: bool = True) -> Json:
    """Returns a Task. `text` is the text of its answer; `history` is the message that it answers."""
    at = task.finished_at or task.started_at or task.created_at
    shown = brief_json(Ids.of(task), task.status, at, task.error, text)
    if history and (question := _question(task)) is not None:
        shown["history"] = [question]
    if task.status.ended:
        shown["metadata"] = {"usage": usage_json(task.usage), **answered_json(task.usage)}
    return shown


def brief_json(ids: Ids, status: TaskStatus, at: datetime, error: TaskError | None, text: str) -> dict[str, Json]:
    """Returns a Task without its history. It has the status since the time `at`."""
    failed = None if error is None else {"code": error.code, "message": error.message}
    shown = {"id": ids.task_id, "contextId": ids.context_id, "status": ids.status(status, at, failed)}
    return shown | ({"artifacts": [answer_json(text)]} if text else {})


def answer_json(text: str) -> Json:
    """Returns the artifact with an answer, or with a piece of it."""
    return {"artifactId": ANSWER, "parts": [{"text": text}]}


def _question(task: Task) -> Json:
    request = task.request
    if request.text is None or not request.is_user_message:
        return None
    parts: list[Json] = [{"text": request.text}] if request.text else []
    parts += [_file(one) for one in request.files]
    parts += [{"data": one.data} for one in request.data if isinstance(one, DataPart)]
    shown = {"messageId": task.question_id, **Ids.of(task).members(), "role": "ROLE_USER", "parts": parts}
    return shown if not isinstance(request.metadata, dict) else shown | {"metadata": request.metadata}


def _file(part: FilePart) -> Json:
    return {"url": part.url, "filename": part.filename, "mediaType": part.media_type}


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- the stream -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Updates:
    """Makes the updates of a task from the chunks of its stream, read from the start.

    `reset-step` removes the unfinished step: the artifact is sent again as it was before that step.
    """

    ids: Ids
    error: Json = None
    _kept: str = ""
    """The text of the finished steps."""
    _step: list[str] = field(default_factory=list)
    _begun: bool = False

    def of(self, chunk: dict[str, Json]) -> Iterator[Json]:
        """Yields each update as a StreamResponse."""
        kind: str = chunk["type"]
        match kind:
            case "start":
                yield self._status(TaskStatus.RUNNING)
            case "finish-step":
                self._keep()
            case "reset-step":
                yield from self._reset()
            case "text-start":
                yield from self._text(BETWEEN if self._kept or self._step else "")
            case "text-delta":
                yield from self._text(chunk["delta"])
            case "data-error":
                self.error = {"code": chunk["data"]["code"], "message": chunk["data"]["message"]}
            case "error":
                self.error = self.error or {"code": "internal_error", "message": chunk["errorText"]}
            case "finish":
                yield self._finished(chunk.get("messageMetadata") or {})
            case _ if kind in _CALLS:
                yield self._told(chunk, "call", "input")
            case _ if kind in _RESULTS:
                yield self._told(chunk, "result", "output" if "output" in chunk else "errorText")

    def _text(self, text: str) -> Iterator[Json]:
        if text:
            self._step.append(text)
            yield self._artifact(text)

    def _keep(self) -> None:
        self._kept += "".join(self._step)
        self._step.clear()

    def _reset(self) -> Iterator[Json]:
        if self._step:
            self._step.clear()
            self._begun = False
            yield self._artifact(self._kept)

    def _artifact(self, text: str) -> Json:
        append, self._begun = self._begun, True
        update = {**self.ids.members(), "artifact": answer_json(text), "append": append}
        return {"artifactUpdate": update}

    def _told(self, chunk: dict[str, Json], kind: str, member: str) -> Json:
        """Returns a status whose message says that a tool was called, or what it returned."""
        call_id = chunk["toolCallId"]
        data = {"type": f"tool-{kind}", "toolCallId": call_id, kind: chunk[member]}
        if "toolName" in chunk:
            data["toolName"] = chunk["toolName"]
        return self._status(TaskStatus.RUNNING, message=self.ids.said(f"{call_id}-{kind}", {"data": data}))

    def _finished(self, metadata: dict[str, Json]) -> Json:
        status = TaskStatus(metadata.get("status", TaskStatus.COMPLETED))
        error = None
        if status is TaskStatus.FAILED:
            error = self.error or {"code": "internal_error", "message": _FAILED}
        told = {name: value for name, value in metadata.items() if name != "status"}
        return self._status(status, error=error, metadata=told)

    def _status(self, status: TaskStatus, *, error: Json = None, message: Json = None, metadata: Json = None) -> Json:
        shown = self.ids.status(status, datetime.now(UTC), error)
        if message is not None:
            shown["message"] = message
        update = {**self.ids.members(), "status": shown}
        return {"statusUpdate": update if not metadata else update | {"metadata": metadata}}


async def as_updates(frames: AsyncGenerator[bytes, None], task: Task, request_id: Json) -> AsyncGenerator[bytes, None]:
    """Yields the frames of JSON-RPC responses: first the task, then its updates to the end of its stream."""
    updates = Updates(Ids.of(task))
    yield _frame(request_id, {"task": task_json(task)})
    async with aclosing(frames):
        async for some in frames:
            rendered = [_frame(request_id, update) for chunk in chunks_of(some) for update in updates.of(chunk)]
            if rendered:
                yield b"".join(rendered)


def _frame(request_id: Json, result: Json) -> bytes:
    return frame_without_id(ascii_json({"jsonrpc": "2.0", "id": request_id, "result": result}))

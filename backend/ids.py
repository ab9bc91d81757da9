"""Identifiers, the functions that create them, and the ids of stream entries."""

from __future__ import annotations

import re
import uuid
from typing import NamedTuple, NewType

SessionId = NewType("SessionId", str)
TaskId = NewType("TaskId", str)
UserId = NewType("UserId", str)
OperationId = NewType("OperationId", str)
ExecutorId = NewType("ExecutorId", str)
FileId = NewType("FileId", str)
LibraryAgentId = NewType("LibraryAgentId", str)
GraphId = NewType("GraphId", str)

SESSION_ID_PATTERN = r"^[A-Za-z0-9_-]{16,64}$"
MAX_ATTEMPTS = 999
_STREAM_ID = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)
_MAX = 2**64 - 1


def new_session_id() -> SessionId:
    return SessionId(str(uuid.uuid4()))


def new_task_id() -> TaskId:
    return TaskId(str(uuid.uuid4()))


def new_operation_id() -> OperationId:
    return OperationId(str(uuid.uuid4()))


def new_executor_id() -> ExecutorId:
    return ExecutorId(uuid.uuid4().hex[:16])


def new_library_agent_id() -> LibraryAgentId:
    return LibraryAgentId(str(uuid.uuid4()))


def new_file_id() -> FileId:
    return FileId(str(uuid.uuid4()))


def new_webhook_id() -> str:
    return str(uuid.uuid4())


def new_folder_id() -> str:
    return str(uuid.uuid4())


def fence_of(task_number: int, attempt: int) -> int:
    """Returns the first half of each stream id of this attempt. It grows with the attempt and is unique to the task."""
    return task_number * 1000 + attempt


class StreamId(NamedTuple):
    """The id of one stream entry, `<fence>-<seq>`, and the cursor of a reader that has read it."""

    fence: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> StreamId:
        """Parses `12-34`. Raises ValueError unless `text` is two decimal numbers below 2**64, joined by a dash."""
        match = _STREAM_ID.fullmatch(text)
        if match is None or max(parts := (int(match[1]), int(match[2]))) > _MAX:
            raise ValueError("not a stream id")
        return cls(*parts)

    @property
    def task_number(self) -> int:
        return self.fence // 1000

    @property
    def attempt(self) -> int:
        return self.fence % 1000

    def __str__(self) -> str:
        return f"{self.fence}-{self.seq}"


BEGINNING = StreamId(0, 0)

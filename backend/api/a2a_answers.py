"""Responses in A2A's protocol: results and errors of JSON-RPC, a stream of updates, or one task when it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

from fastapi import Response
from starlette.types import Send

from backend.api.problems import error_headers, problem_of
from backend.api.sse import EventStream, Frames
from backend.chat.models import Json, Task
from backend.chat.protocol.chunks import ascii_json
from backend.chat.protocol.renderings.a2a_tasks import as_updates
from backend.errors import (
    AppError,
    BadRequest,
    Forbidden,
    InvalidJson,
    NotFound,
    StreamCut,
    TaskNotFound,
    TokenExpired,
    Unavailable,
    Unprocessable,
    UnreadableFile,
    UnsupportedFile,
    UnsupportedPart,
)

_DOMAIN = "a2a-protocol.org"


class RpcError(Exception):
    """An error of A2A or JSON-RPC that no other part of this server has. `reason` is its name in A2A."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class NotCancelable(RpcError):
    def __init__(self) -> None:
        super().__init__(-32002, "TASK_NOT_CANCELABLE", "The task has ended.")


class UnsupportedOperation(RpcError):
    def __init__(self, message: str) -> None:
        super().__init__(-32004, "UNSUPPORTED_OPERATION", message)


class PushNotSupported(RpcError):
    def __init__(self, message: str) -> None:
        super().__init__(-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", message)


_CODES: tuple[tuple[type[AppError], int, str], ...] = (
    (TaskNotFound, -32001, "TASK_NOT_FOUND"),
    (UnsupportedPart, -32005, "CONTENT_TYPE_NOT_SUPPORTED"),
    (UnsupportedFile, -32005, "CONTENT_TYPE_NOT_SUPPORTED"),
    (UnreadableFile, -32005, "CONTENT_TYPE_NOT_SUPPORTED"),
    (Forbidden, -32004, "UNSUPPORTED_OPERATION"),
    (NotFound, -32602, "INVALID_PARAMS"),
    (BadRequest, -32602, "INVALID_PARAMS"),
    (Unprocessable, -32602, "INVALID_PARAMS"),
)
"""The codes of A2A for errors of this server: the first that fits. All others are internal, with their HTTP status."""


def result(request_id: Json, value: Json) -> Response:
    return _answer({"jsonrpc": "2.0", "id": request_id, "result": value})


def failure(request_id: Json, error: Exception) -> Response:
    """Returns an error of JSON-RPC. Errors that A2A does not know, such as limits, keep their HTTP status."""
    if isinstance(error, RpcError):
        return _answer(_failed(request_id, error.code, error.reason, str(error)))
    problem = problem_of(error)
    for kind, code, reason in _CODES:
        if isinstance(problem, kind):
            return _answer(_failed(request_id, code, reason, _sentence(problem), problem.code))
    return _answer(_internal(request_id, problem), problem.status, error_headers(problem))


def refusal(error: Exception) -> Response:
    """Returns the error of JSON-RPC for a request of which nothing was read, not even its id."""
    problem = problem_of(error)
    if isinstance(problem, InvalidJson):
        return _answer(_failed(None, -32700, "PARSE_ERROR", _sentence(problem), problem.code))
    return _answer(_failed(None, -32600, "INVALID_REQUEST", _sentence(problem), problem.code))


def _internal(request_id: Json, problem: AppError) -> Json:
    return _failed(request_id, -32603, "INTERNAL_ERROR", problem.detail, problem.code)


def _failed(request_id: Json, code: int, reason: str, message: str, own: str | None = None) -> Json:
    info: dict[str, Json] = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": _DOMAIN}
    if own is not None:
        info["metadata"] = {"code": own}
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message, "data": [info]}}


def _sentence(problem: AppError) -> str:
    fields = problem.extra.get("fields") or ()
    return " ".join([problem.detail, *(f"{field['path']}: {field['message']}." for field in fields)])


def _answer(document: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    about = {"cache-control": "no-store", **(headers or {})}
    return Response(ascii_json(document), status, about, "application/json")


class UpdateStream(EventStream):
    """Streams a task as responses of JSON-RPC, each with an update."""

    protocol_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, open_frames: Callable[[], Awaitable[Frames]], task: Task, request_id: Json, **kwargs: Any
    ) -> None:
        async def rendered() -> Frames:
            return as_updates(await open_frames(), task, request_id)

        super().__init__(rendered, task_id=task.id, **kwargs)
        self._request_id = request_id

    def expired_frames(self) -> bytes:
        return b"data: " + ascii_json(_internal(self._request_id, TokenExpired())) + b"\n\n"


class WholeTask(UpdateStream):
    """Waits for the end of a task and answers with it. `read` returns the task as it is then."""

    starts_at_once = False

    def __init__(
        self,
        open_frames: Callable[[], Awaitable[Frames]],
        task: Task,
        request_id: Json,
        read: Callable[[], Awaitable[Json]],
        **kwargs: Any,
    ) -> None:
        super().__init__(open_frames, task, request_id, **kwargs)
        self._open_raw = open_frames
        self._read = read
        self.expires_at = None  # an expired token ends no answer here: nothing was sent yet

    async def _pump(self, send: Send) -> None:
        answer = await self._whole()
        self.status_code = answer.status_code
        length = b"content-length"
        headers = [pair for pair in self.raw_headers if pair[0] not in (b"content-type", b"cache-control")]
        headers += [pair for pair in answer.raw_headers if pair[0] != length]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def _whole(self) -> Response:
        try:
            async with aclosing(await self._open_raw()) as frames:
                async for _ in frames:
                    pass
            return result(self._request_id, await self._read())
        except (AppError, StreamCut, OSError) as error:
            return failure(self._request_id, error if isinstance(error, AppError) else Unavailable())

"""Responses in OpenAI's protocol: a stream of chunks, or one JSON object, from the stream of a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from starlette.types import Send

from backend.api.problems import openai_error, problem_of
from backend.api.sse import EventStream, Frames
from backend.chat.protocol.chunks import ascii_json
from backend.chat.protocol.renderings.openai_chunks import (
    Completion,
    as_openai_stream,
    error_json,
    read_answer,
    whole_completion,
)
from backend.errors import AppError, StreamCut, TokenExpired, Unavailable

FAILED_STATUS = 502
"""The status of a whole answer that the model could not give."""


class OpenAIStream(EventStream):
    """Streams a task as `chat.completion.chunk` objects. `on_cut` is called if it stops before the task's end."""

    protocol_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        open_frames: Callable[[], Awaitable[Frames]],
        completion: Completion,
        *,
        on_cut: Callable[[], None] | None,
        **kwargs: Any,
    ) -> None:
        async def rendered() -> Frames:
            return as_openai_stream(await open_frames(), completion)

        super().__init__(rendered, **kwargs)
        self._on_cut = on_cut

    def on_stop(self) -> None:
        if self._on_cut is not None:
            self._on_cut()

    def expired_frames(self) -> bytes:
        return b"data: " + ascii_json(openai_error(TokenExpired())) + b"\n\n"


class WholeAnswer(OpenAIStream):
    """Reads a task to its end and answers with one `chat.completion` object, or with an error."""

    starts_at_once = False

    def __init__(self, open_frames: Callable[[], Awaitable[Frames]], completion: Completion, **kwargs: Any) -> None:
        super().__init__(open_frames, completion, **kwargs)
        self._open_raw = open_frames
        self.expires_at = None  # an expired token ends no answer here: nothing was sent yet
        self._completion = completion

    async def _pump(self, send: Send) -> None:
        status, document = await self._read()
        self.status_code = status
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-type"]
        headers.append((b"content-type", b"application/json"))
        if status == FAILED_STATUS:
            headers.append((b"x-should-retry", b"false"))  # OpenAI's SDKs would repeat the whole turn twice
        if status not in (200, FAILED_STATUS):  # the turn may still run, but nobody can read its answer
            self.on_stop()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": ascii_json(document), "more_body": False})

    async def _read(self) -> tuple[int, Any]:
        try:
            answer = await read_answer(await self._open_raw(), self._completion)
        except (AppError, StreamCut, OSError) as error:
            problem = problem_of(error) if isinstance(error, AppError) else Unavailable()
            return problem.status, openai_error(problem)
        if answer.error is not None:
            return FAILED_STATUS, error_json(answer.error["message"], answer.error["code"])
        return 200, whole_completion(answer)

"""The stream of a task as chunks of OpenAI's chat completions, for clients that speak that protocol.

The shapes are those of OpenAI's API reference, "Create chat completion" and "The chat completion chunk object" (2026).
`delta.reasoning_content` is not OpenAI's: DeepSeek brought it in, and Open WebUI, LibreChat and LiteLLM show it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from backend.chat.models import Json
from backend.chat.protocol.chunks import ascii_json
from backend.chat.protocol.sse_frames import DONE, frame_without_id

MAX_INPUT_CHARS = 500
"""Characters of a tool call's input that are shown."""
_END = b"\n\n"
_DATA = b"\ndata: "
_REASONS = {"length": "length", "content-filter": "content_filter"}
_FAILED = "internal_error"


class ToolsAs(StrEnum):
    """The ways to show that a tool was called: the server runs its tools itself, so clients get no tool calls."""

    REASONING = "reasoning"
    TEXT = "text"
    HIDDEN = "hidden"


@dataclass(slots=True)
class Completion:
    """The members that all chunks of one answer share. `created` is a Unix time in seconds."""

    id: str
    model: str
    created: int
    tools_as: ToolsAs = ToolsAs.REASONING
    with_usage: bool = False


@dataclass(slots=True)
class OpenAIAnswer:
    """Builds an answer from the chunks of its stream: `feed` returns the deltas that each chunk adds.

    Afterwards `content` and `reasoning` hold the whole answer, `finish_reason` and `usage` its end, and `error` the
    reason why it failed (`code` and `message`), or None.
    """

    completion: Completion
    finish_reason: str | None = None
    usage: Json = None
    error: dict[str, Json] | None = None
    _steps: list[tuple[list[str], list[str]]] = field(default_factory=lambda: [([], [])])

    @property
    def content(self) -> str:
        return "".join(text for contents, _ in self._steps for text in contents)

    @property
    def reasoning(self) -> str:
        return "".join(text for _, reasonings in self._steps for text in reasonings)

    def feed(self, chunk: dict[str, Json]) -> Iterator[dict[str, Json]]:
        """Yields the deltas of OpenAI's protocol that a chunk adds to the answer."""
        match chunk["type"]:
            case "start-step":
                self._steps.append(([], []))
            case "reset-step":
                yield from self._reset()
            case "text-start":
                yield from self._text("\n\n" if self._has_content() else "")
            case "text-delta":
                yield from self._text(chunk["delta"])
            case "reasoning-delta":
                yield from self._reasoning(chunk["delta"])
            case "tool-input-available" | "tool-input-error":
                yield from self._note(_called(chunk))
            case "tool-output-error":
                yield from self._note(f"The tool failed: {chunk['errorText']}")
            case "data-error":
                self.error = {"code": chunk["data"]["code"], "message": chunk["data"]["message"]}
            case "error":
                self.error = self.error or {"code": _FAILED, "message": chunk["errorText"]}
            case "finish":
                self._finish(chunk)

    def _has_content(self) -> bool:
        return any(contents for contents, _ in self._steps)

    def _text(self, text: str) -> Iterator[dict[str, Json]]:
        if text:
            self._steps[-1][0].append(text)
            yield {"content": text}

    def _reasoning(self, text: str) -> Iterator[dict[str, Json]]:
        if text:
            self._steps[-1][1].append(text)
            yield {"reasoning_content": text}

    def _note(self, text: str) -> Iterator[dict[str, Json]]:
        if self.completion.tools_as is ToolsAs.REASONING:
            yield from self._reasoning(f"\n[{text}]\n")
        elif self.completion.tools_as is ToolsAs.TEXT:
            yield from self._text(f"{_gap(self._has_content())}> {text}")

    def _reset(self) -> Iterator[dict[str, Json]]:
        """Removes the unfinished step from the whole answer. A client that reads the stream keeps what it has got."""
        shown = bool(self._steps[-1][0])
        self._steps[-1] = ([], [])
        if shown:
            yield {"content": "\n\n"}

    def _finish(self, chunk: dict[str, Json]) -> None:
        self.finish_reason = _REASONS.get(chunk["finishReason"], "stop")
        self.usage = _usage(chunk.get("messageMetadata", {}).get("usage", {}))


def _gap(needed: bool) -> str:
    return "\n\n" if needed else ""


def _called(chunk: dict[str, Json]) -> str:
    given = ascii_json(chunk["input"]).decode()
    shown = given if len(given) <= MAX_INPUT_CHARS else f"{given[:MAX_INPUT_CHARS]}…"
    return f"{chunk['toolName']} {shown}"


def _usage(usage: dict[str, int]) -> Json:
    return {
        "prompt_tokens": usage.get("inputTokens", 0),
        "completion_tokens": usage.get("outputTokens", 0),
        "total_tokens": usage.get("totalTokens", 0),
        "prompt_tokens_details": {"cached_tokens": usage.get("cachedInputTokens", 0)},
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoningTokens", 0)},
    }


def error_json(message: str, code: str, kind: str = "server_error", param: str | None = None) -> Json:
    """Returns an error in the shape of OpenAI's API: `message` for people, `code` for programs."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def chunks_of(frames: bytes) -> Iterator[dict[str, Json]]:
    """Yields the chunks in whole frames, without comments and `[DONE]`."""
    for frame in frames.split(_END):
        _, found, body = (b"\n" + frame).partition(_DATA)  # a body has no line break, but may hold these words
        if found and body[:1] == b"{":
            yield orjson.loads(body)


async def read_answer(frames: AsyncGenerator[bytes, None], completion: Completion) -> OpenAIAnswer:
    """Reads a stream to its end and returns the whole answer."""
    answer = OpenAIAnswer(completion)
    async with aclosing(frames):
        async for some in frames:
            for chunk in chunks_of(some):
                for _ in answer.feed(chunk):
                    pass
    return answer


def whole_completion(answer: OpenAIAnswer) -> Json:
    """Returns the answer as a `chat.completion` object."""
    message: dict[str, Json] = {"role": "assistant", "content": answer.content, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    return {**_head(answer.completion, "chat.completion"), "choices": [choice], "usage": answer.usage}


async def as_openai_stream(frames: AsyncGenerator[bytes, None], completion: Completion) -> AsyncGenerator[bytes, None]:
    """Yields the frames of a stream of `chat.completion.chunk` objects, up to `[DONE]`."""
    answer = OpenAIAnswer(completion)
    yield _frame(completion, {"role": "assistant", "content": ""})
    async with aclosing(frames):
        async for some in frames:
            rendered = [_frame(completion, delta) for chunk in chunks_of(some) for delta in answer.feed(chunk)]
            if rendered:
                yield b"".join(rendered)
    if answer.error is not None:
        yield frame_without_id(ascii_json(error_json(answer.error["message"], answer.error["code"])))
    else:
        yield _frame(completion, {}, answer.finish_reason)
    if completion.with_usage:
        yield frame_without_id(ascii_json({**_head_of_chunk(completion), "choices": [], "usage": answer.usage}))
    yield DONE


def _frame(completion: Completion, delta: dict[str, Json], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    usage = {"usage": None} if completion.with_usage else {}
    return frame_without_id(ascii_json({**_head_of_chunk(completion), "choices": [choice], **usage}))


def _head_of_chunk(completion: Completion) -> dict[str, Json]:
    return _head(completion, "chat.completion.chunk")


def _head(completion: Completion, kind: str) -> dict[str, Json]:
    return {"id": completion.id, "object": kind, "created": completion.created, "model": completion.model}

"""The stream of a task as events of AG-UI 1.0, for frontends that speak that protocol.

The shapes are those of `@ag-ui/core` 1.0.0 (https://docs.ag-ui.com/concepts/events, 2026-11). A chunk alone says which
events it becomes, so a stream can be continued after any cursor. The last event of a chunk has the chunk's cursor.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from backend.chat.models import Json
from backend.chat.protocol.chunks import ascii_json
from backend.chat.protocol.sse_frames import frame_without_id

PROTOCOL_VERSION = "1.0"
STEP = "step"
"""The name of every step: one is open at a time."""
_END = b"\n\n"
_DATA = b"data: "
_FAILED = "The answer failed."
_CUSTOM = ("source-url", "message-metadata")

Event = dict[str, Any]


@dataclass(slots=True)
class ThreadRun:
    """A run of a thread: the answer to one message. `error` is why it failed, once the stream has said so."""

    thread_id: str
    run_id: str
    error: Event | None = None

    def started(self) -> Event:
        return {"type": "RUN_STARTED", **self._ids(), "protocolVersion": PROTOCOL_VERSION}

    def events_of(self, chunk: dict[str, Json]) -> Iterator[Event]:
        """Yields the events of a chunk."""
        kind: str = chunk["type"]
        if kind.startswith("data-"):
            yield from self._data(kind, chunk)
        elif kind in _CUSTOM:
            yield _custom(kind, {name: value for name, value in chunk.items() if name != "type"})
        elif kind.startswith("text-"):
            yield from _text(kind, chunk)
        elif kind.startswith("reasoning-"):
            yield from _reasoning(kind, chunk)
        elif kind.startswith("tool-"):
            yield from _tool(kind, chunk)
        else:
            yield from self._lifecycle(kind, chunk)

    def _lifecycle(self, kind: str, chunk: dict[str, Json]) -> Iterator[Event]:
        match kind:
            case "start":
                yield self.started()
            case "start-step":
                yield {"type": "STEP_STARTED", "stepName": STEP}
            case "finish-step":
                yield {"type": "STEP_FINISHED", "stepName": STEP}
            case "error":
                self.error = self.error or {"message": chunk["errorText"]}
            case "finish":
                yield self.finished(chunk.get("messageMetadata") or {})

    def _data(self, kind: str, chunk: dict[str, Json]) -> Iterator[Event]:
        if kind == "data-error":
            self.error = {"message": chunk["data"]["message"], "code": chunk["data"]["code"]}
        else:
            yield _custom(kind, {name: chunk[name] for name in ("id", "data") if name in chunk})

    def finished(self, metadata: Event) -> Event:
        """Returns the last event: RUN_ERROR if the answer failed. `metadata` is that of the chunk `finish`."""
        usage = {"usage": [_usage(metadata)]} if "usage" in metadata else {}
        if metadata.get("status") == "failed":
            return {"type": "RUN_ERROR", **(self.error or {"message": _FAILED}), **usage}
        outcome = "cancelled" if metadata.get("status") == "cancelled" else "success"
        return {"type": "RUN_FINISHED", **self._ids(), "outcome": {"type": outcome}, "result": metadata, **usage}

    def _ids(self) -> Event:
        return {"threadId": self.thread_id, "runId": self.run_id}


def _custom(name: str, value: Json) -> Event:
    return {"type": "CUSTOM", "name": name, "value": value}


def _text(kind: str, chunk: dict[str, Json]) -> Iterator[Event]:
    about = {"messageId": chunk["id"]}
    match kind:
        case "text-start":
            yield {"type": "TEXT_MESSAGE_START", **about, "role": "assistant"}
        case "text-delta":
            yield {"type": "TEXT_MESSAGE_CONTENT", **about, "delta": chunk["delta"]}
        case "text-end":
            yield {"type": "TEXT_MESSAGE_END", **about}


def _reasoning(kind: str, chunk: dict[str, Json]) -> Iterator[Event]:
    about = {"messageId": chunk["id"]}
    match kind:
        case "reasoning-start":
            yield {"type": "REASONING_START", **about}
            yield {"type": "REASONING_MESSAGE_START", **about, "role": "reasoning"}
        case "reasoning-delta":
            yield {"type": "REASONING_MESSAGE_CONTENT", **about, "delta": chunk["delta"]}
        case "reasoning-end":
            yield {"type": "REASONING_MESSAGE_END", **about}
            yield {"type": "REASONING_END", **about}


def _tool(kind: str, chunk: dict[str, Json]) -> Iterator[Event]:
    """Yields a call once its input is complete: until then it may not be JSON, and a takeover may end the call."""
    about = {"toolCallId": chunk["toolCallId"]}
    match kind:
        case "tool-input-available" | "tool-input-error":
            yield {"type": "TOOL_CALL_START", **about, "toolCallName": chunk["toolName"]}
            yield {"type": "TOOL_CALL_ARGS", **about, "delta": ascii_json(chunk["input"]).decode()}
            yield {"type": "TOOL_CALL_END", **about}
            if kind == "tool-input-error":
                yield _result(chunk["toolCallId"], chunk["errorText"])
        case "tool-output-available":
            yield _result(chunk["toolCallId"], _as_text(chunk["output"]))
        case "tool-output-error":
            yield _result(chunk["toolCallId"], chunk["errorText"])


def _result(tool_call_id: str, content: str) -> Event:
    about = {"messageId": result_id(tool_call_id), "toolCallId": tool_call_id}
    return {"type": "TOOL_CALL_RESULT", **about, "content": content, "role": "tool"}


def result_id(tool_call_id: str) -> str:
    """Returns the id of the message with the result of a call."""
    return f"result_{tool_call_id}"


def _as_text(output: Json) -> str:
    return output if isinstance(output, str) else ascii_json(output).decode()


def _usage(metadata: Event) -> Event:
    names = ("inputTokens", "outputTokens", "totalTokens", "reasoningTokens", "cachedInputTokens")
    counts = {name: metadata["usage"][name] for name in names if name in metadata["usage"]}
    return counts | ({"model": metadata["model"]} if metadata.get("model") else {})


# --- history ----------------------------------------------------------------------------------------------------------


def snapshot_of(shown: Iterable[dict[str, Json]]) -> Event:
    """Returns the event with the messages of a thread, made from `UIMessage`s."""
    return {"type": "MESSAGES_SNAPSHOT", "messages": [one for message in shown for one in _messages(message)]}


def _messages(shown: dict[str, Json]) -> Iterator[Event]:
    if shown["role"] == "user":
        yield {"id": shown["id"], "role": "user", "content": _texts(shown)}
        return
    for place, part in enumerate(shown["parts"]):
        id = f"{shown['id']}-{place}"
        if part["type"] in ("text", "reasoning"):
            yield {"id": id, "role": "assistant" if part["type"] == "text" else "reasoning", "content": part["text"]}
        elif part["type"] == "dynamic-tool":
            yield from _call(id, part)


def _call(id: str, part: dict[str, Json]) -> Iterator[Event]:
    call_id = part["toolCallId"]
    function = {"name": part["toolName"], "arguments": ascii_json(part["input"]).decode()}
    yield {"id": id, "role": "assistant", "toolCalls": [{"id": call_id, "type": "function", "function": function}]}
    content = _as_text(part["output"]) if "output" in part else part.get("errorText")
    if content is not None:
        yield {"id": result_id(call_id), "role": "tool", "toolCallId": call_id, "content": content}


def _texts(shown: dict[str, Json]) -> str:
    return "".join(part["text"] for part in shown["parts"] if part["type"] == "text")


# --- frames -----------------------------------------------------------------------------------------------------------


async def as_ag_ui_stream(
    frames: AsyncGenerator[bytes, None], run: ThreadRun, before: Iterable[Event] = ()
) -> AsyncGenerator[bytes, None]:
    """Yields the frames of the events: those of `before`, then those of a task's stream.

    If `before` has begun the run, the stream does not begin it again.
    """
    begun = False
    for event in before:
        begun = True
        yield frame_of(event)
    async with aclosing(frames):
        async for some in frames:
            rendered = [rendered for one in some.split(_END) if (rendered := _render(one, run, begun=begun))]
            if rendered:
                yield b"".join(rendered)


def frame_of(event: Event) -> bytes:
    return frame_without_id(ascii_json(event))


def _render(frame: bytes, run: ThreadRun, *, begun: bool) -> bytes:
    """Renders one frame. Comments, and the end mark `[DONE]`, which the protocol does not have, become nothing."""
    head, found, body = frame.partition(_DATA)
    if not found or body[:1] != b"{":
        return b""
    events = [event for event in run.events_of(orjson.loads(body)) if not (begun and event["type"] == "RUN_STARTED")]
    if not events:
        return b""
    *others, last = [frame_of(event) for event in events]
    return b"".join(others) + head + last

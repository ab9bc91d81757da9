"""A strict client of the AI SDK's chunk protocol, for tests: what AI SDK 5 refuses, it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from backend.ids import BEGINNING, StreamId


@dataclass
class StrictClient:
    """Feeds on bytes of a stream, also cut ones; keeps the message, the cursor, and every chunk it was sent."""

    accepts_reset: bool = False
    cursor: StreamId = BEGINNING
    done: bool = False
    chunks: list[dict[str, Any]] = field(default_factory=list)
    ids: list[StreamId] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    _open: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    _rest: bytes = b""

    def feed(self, data: bytes, *, at_most: int | None = None) -> bool:
        """Takes whole events; with `at_most` only so many, and True when more were there (they are forgotten)."""
        events = (self._rest + data).split(b"\n\n")
        self._rest = events.pop()
        for n, event in enumerate(events):
            if at_most is not None and n >= at_most:
                self._rest = b""
                return True
            self._take(event)
        return False

    def reconnect(self) -> None:
        """The connection is another one: what came of an event that was cut off is forgotten."""
        self._rest = b""

    def _take(self, event: bytes) -> None:
        if event.startswith(b":"):
            return
        assert not self.done, "an event after [DONE]"
        assert event.isascii()
        lines = dict(line.split(b": ", 1) for line in event.split(b"\n"))
        assert set(lines) <= {b"id", b"data"}, event
        if lines[b"data"] == b"[DONE]":
            assert self.chunks[-1]["type"] == "finish"
            self.done = True
            return
        if b"id" in lines:
            id = StreamId.parse(lines[b"id"].decode())
            assert id > self.cursor, f"{id} after {self.cursor}"
            self.cursor = id
            self.ids.append(id)
        chunk = orjson.loads(lines[b"data"])
        self.chunks.append(chunk)
        self._apply(chunk["type"], chunk)

    def _apply(self, kind: str, chunk: dict[str, Any]) -> None:
        family, _, act = kind.partition("-")
        if family in ("text", "reasoning"):
            self._spoken(family, act, chunk)
        elif family == "tool":
            self._called(kind, chunk)
        elif kind == "start":
            assert not self.parts
            assert [c["type"] for c in self.chunks].count("start") == 1
        elif kind == "start-step":
            self.parts.append({"type": "step-start"})
        elif kind == "finish-step":
            assert not self._open, f"open parts across finish-step: {self._open}"
        elif kind == "reset-step":
            assert self.accepts_reset
            while self.parts and self.parts[-1]["type"] != "step-start":
                self.parts.pop()
            self._open.clear()
        else:
            assert kind in ("finish", "abort", "error", "message-metadata") or kind.startswith("data-"), kind

    def _spoken(self, family: str, act: str, chunk: dict[str, Any]) -> None:
        key = (family, chunk["id"])
        if act == "start":
            assert key not in self._open
            self._open[key] = {"type": family, "text": ""}
            self.parts.append(self._open[key])
        elif act == "delta":
            self._open[key]["text"] += chunk["delta"]
        else:
            del self._open[key]

    def _called(self, kind: str, chunk: dict[str, Any]) -> None:
        call_id = chunk["toolCallId"]
        if kind != "tool-input-delta":
            assert chunk["providerExecuted"] is chunk["dynamic"] is True
        if kind in ("tool-input-start", "tool-input-available") and call_id not in self._calls:
            self._calls[call_id] = {"type": "tool", "id": call_id, "name": chunk["toolName"], "input": ""}
            self.parts.append(self._calls[call_id])
        call = self._calls[call_id]
        call["state"] = kind
        if kind == "tool-input-delta":
            call["input"] += chunk["inputTextDelta"]
        elif kind == "tool-input-available":
            call["input"] = chunk["input"]
        elif kind == "tool-input-error":
            assert "input" in chunk
            assert chunk["toolName"] == call["name"]
        elif kind == "tool-output-available":
            assert "input" in call
            call["output"] = chunk["output"]

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == "text")

    @property
    def steps(self) -> list[str]:
        """The text of each step, also of one that a death has torn off."""
        steps: list[str] = []
        for part in self.parts:
            if part["type"] == "step-start":
                steps.append("")
            elif part["type"] == "text":
                steps[-1] += part["text"]
        return steps

    @property
    def types(self) -> list[str]:
        return [chunk["type"] for chunk in self.chunks]

"""A strict client of the AI SDK's chunk protocol for tests. It refuses everything that AI SDK 5 refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from backend.ids import BEGINNING, StreamId


@dataclass
class StrictClient:
    """Parses the bytes of a stream, however they are split. Keeps the message's parts, the cursor, and every chunk."""

    accepts_reset: bool = False
    static_tools: bool = False
    continues: bool = False
    """The message continues one whose calls this client does not know."""
    cursor: StreamId = BEGINNING
    done: bool = False
    chunks: list[dict[str, Any]] = field(default_factory=list)
    ids: list[StreamId] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    _open: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    _rest: bytes = b""

    def feed(self, data: bytes, *, at_most: int | None = None) -> bool:
        """Reads the whole events in `data`, at most `at_most`. Returns True if there were more, which are dropped."""
        events = (self._rest + data).split(b"\n\n")
        self._rest = events.pop()
        for n, event in enumerate(events):
            if at_most is not None and n >= at_most:
                self._rest = b""
                return True
            self._take(event)
        return False

    def reconnect(self) -> None:
        """Drops the beginning of an event that the previous connection cut off."""
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
            self._apply_text(family, act, chunk)
        elif family == "tool":
            self._apply_call(kind, chunk)
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
        elif kind == "source-url":
            assert not self._open, f"open parts across a source: {self._open}"
            assert chunk.keys() - {"title"} == {"type", "sourceId", "url"}
            self.parts.append(dict(chunk))
        else:
            assert kind in ("finish", "abort", "error", "message-metadata") or kind.startswith("data-"), kind

    def _apply_text(self, family: str, act: str, chunk: dict[str, Any]) -> None:
        key = (family, chunk["id"])
        if act == "start":
            assert key not in self._open
            self._open[key] = {"type": family, "text": ""}
            self.parts.append(self._open[key])
        elif act == "delta":
            self._open[key]["text"] += chunk["delta"]
        else:
            del self._open[key]

    def _apply_call(self, kind: str, chunk: dict[str, Any]) -> None:
        call_id = chunk["toolCallId"]
        if kind not in ("tool-input-delta", "tool-approval-request", "tool-output-denied"):
            assert chunk["providerExecuted"] is True
            assert chunk.get("dynamic") is (None if self.static_tools else True)
        if kind in ("tool-input-start", "tool-input-available") and call_id not in self._calls:
            self._calls[call_id] = {"type": "tool", "id": call_id, "name": chunk["toolName"], "input": ""}
            self.parts.append(self._calls[call_id])
        if self.continues:
            self._calls.setdefault(call_id, {"input": None})
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
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs of the tool calls, in the order of the calls. Their chunks may come in any order."""
        calls = [chunk["toolCallId"] for chunk in self.chunks if chunk["type"] == "tool-input-available"]
        ended = [chunk for chunk in self.chunks if chunk["type"] == "tool-output-available"]
        return [chunk["output"] for chunk in sorted(ended, key=lambda chunk: calls.index(chunk["toolCallId"]))]

    @property
    def steps(self) -> list[str]:
        """The text of each step, including steps that a crash cut off."""
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

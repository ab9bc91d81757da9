"""The script of a fake model server. The lines of the last user message say what it does:

    /say TEXT            streams the text, word by word
    /raw JSON            streams the JSON string unchanged as one text delta (surrogates, NULs, line separators)
    /stream N [MS]       streams N text deltas `0 `, `1 `, …, with that delay before each
    /count NAME N [MS]   the same with the deltas `NAME:0;`, `NAME:1;`, …: a gap or a repeat shows in the text itself
    /think TEXT          streams reasoning, word by word
    /cite JSON           cites the page of the JSON object (`url`, `title`)
    /tool NAME JSON      calls a tool; several are parallel calls; the JSON is split into pieces of 5 characters
    /status CODE [TIMES] [RETRY-AFTER]      answers that status to the first TIMES tries of this step (default: all)
    /header NAME VALUE   a header of the next /body
    /body CODE TIMES TYPE JSON              answers that status and that content type with the JSON string as its body,
                         byte for byte, to the first TIMES tries of this step (0: all)
    /hangup [TIMES]      closes the connection here without an answer (in the first TIMES tries)
    /error KIND [TIMES]  sends an error event here, inside the stream (in the first TIMES tries)
    /drop [TIMES]        breaks the connection here (in the first TIMES tries)
    /end [TIMES]         ends the stream here, cleanly, without a finish reason (in the first TIMES tries)
    /slow SECONDS        waits here; as the first command, waits before the first byte
    /hang                sends nothing more and keeps the connection open
    /ping SECONDS        sends only pings (comments) for that time
    /finish REASON       ends with that finish reason, in the provider's words (for Anthropic also
                         `refusal EXPLANATION`)
    /quirk NAME          `cut-end` breaks the connection right after the finish reason; the servers list the others
    /summary COMMAND     performs that command, and all such ones, when a summary of this conversation is asked for
    /afresh              skips all commands above, which belong to an earlier question that was never answered
    /then                keeps all commands below for the next step, after the tool results

Without a command, the answer repeats the question or the tool results. A summary has all sentences of the request that
begin with `FACT:`. GET /requests returns the latest requests as
`[{"headers", "body", "peer"}]`, where `peer` is the caller's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.fakes.serving import Exchange

_COMMAND = re.compile(
    r"^/(say|raw|stream|count|think|cite|tool|status|error|drop|end|slow|hang|ping|finish|quirk|afresh|then|header|body|hangup)"
    r"(?: +(.*))?$",
    re.MULTILINE,
)


_ASKS_FOR_SUMMARY = "Write a summary of all messages above"
_OF_SUMMARY = re.compile(r'/summary ([^\\"]+)')
_FACT = re.compile(r"FACT: [^.\\\"]+\.")


class Wire(Protocol):
    """The format of one provider."""

    quirks: set[str]

    def begin(self) -> bytes: ...
    def text(self, text: str) -> bytes: ...
    def think(self, text: str) -> bytes: ...
    def cite(self, page: Any) -> bytes: ...
    def calls(self, calls: list[tuple[str, str]]) -> Iterable[bytes]: ...
    def error(self, kind: str) -> bytes: ...
    def ping(self) -> bytes: ...
    def finish(self, reason: str | None) -> Iterable[bytes]: ...
    def refusal(self, status: int) -> Any: ...


@dataclass
class Fake:
    """The state of one fake server: the number of tries of each step, and the latest requests."""

    tries: Counter[str] = field(default_factory=Counter)
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=500))

    async def remember(self, exchange: Exchange) -> bool:
        """Answers GET /requests, and keeps a POST. Returns False if the request is answered."""
        if exchange.request.method == "GET":
            await exchange.answer(200, list(self.requests))
            return False
        request = exchange.request
        self.requests.append({"headers": request.headers, "body": request.json(), "peer": request.peer})
        return True

    async def play(self, exchange: Exchange, wire: Wire, text: str, step: int, results: list[str]) -> None:
        """Performs one step of the script."""
        if _ASKS_FOR_SUMMARY in text:
            text = summary_of(exchange.request.json())
        steps: list[list[tuple[str, str]]] = [[]]
        for match in _COMMAND.finditer(text):
            if match[1] == "afresh":
                steps = [[]]
            elif match[1] == "then":
                steps.append([])
            else:
                steps[-1].append((match[1], (match[2] or "").strip()))
        commands = steps[step] if step < len(steps) else []
        if not commands:
            commands = [("say", f"The tools answered {' and '.join(results)}" if results else f"You said: {text}")]
        self.tries[key := f"{step} {text}"] += 1
        with contextlib.suppress(_OverError):
            await _Performance(exchange, wire, self.tries[key]).perform(commands)


def summary_of(body: dict[str, Any]) -> str:
    """Returns the script of the answer to a request for a summary."""
    sent = json.dumps(body.get("messages") or body["input"])
    commands = dict.fromkeys(_OF_SUMMARY.findall(sent))
    return "\n".join(commands) or f"/say In short. {' '.join(dict.fromkeys(_FACT.findall(sent)))}"


class _OverError(Exception):
    """Ends the answer at this point."""


@dataclass
class _Performance:
    exchange: Exchange
    wire: Wire
    number: int
    """The number of this try, from 1."""
    begun: bool = False

    async def perform(self, commands: list[tuple[str, str]]) -> None:
        calls: list[tuple[str, str]] = []
        headers: dict[str, str] = {}
        reason: str | None = None
        self.wire.quirks.update(rest for verb, rest in commands if verb == "quirk")
        for verb, rest in commands:
            words = rest.split()
            match verb:
                case "status":
                    if self._due(words[1:2]):
                        headers = {"retry-after": words[2]} if len(words) > 2 else {}
                        await self.exchange.answer(int(words[0]), self.wire.refusal(int(words[0])), headers)
                        return
                case "header":
                    headers[words[0]] = rest.partition(" ")[2]
                case "body":
                    if words[1] == "0" or self._due(words[1:2]):
                        kind, body = words[2], json.loads(rest.split(" ", 3)[3])
                        await self.exchange.answer_text(int(words[0]), kind, body, headers)
                        return
                case "hangup":
                    if self._due(words):
                        await self.exchange.hang_up()
                case "tool":
                    name, _, arguments = rest.partition(" ")
                    calls.append((name, arguments))
                case "finish":
                    reason = rest
                case "quirk":
                    pass
                case "end" if self._due(words):
                    await self._begin()
                    await self.exchange.end_stream()
                    return
                case _:
                    await self._say(verb, rest, words)
        await self._begin()
        for data in self.wire.calls(calls) if calls else ():
            await self.exchange.send(data)
        for data in self.wire.finish(reason):
            await self.exchange.send(data)
            if "cut-end" in self.wire.quirks and data:
                await self.exchange.cut()
        await self.exchange.end_stream()

    async def _say(self, verb: str, rest: str, words: list[str]) -> None:
        if verb == "slow":
            await asyncio.sleep(float(words[0]))
            return
        await self._begin()
        match verb:
            case "say" | "think":
                write = self.wire.text if verb == "say" else self.wire.think
                for word in re.findall(r"\s*\S+", rest):
                    await self.exchange.send(write(word))
            case "raw":
                await self.exchange.send(self.wire.text(json.loads(rest)))
            case "cite":
                await self.exchange.send(self.wire.cite(json.loads(rest)))
            case "stream":
                for number in range(int(words[0])):
                    await asyncio.sleep(float(words[1]) / 1000 if len(words) > 1 else 0)
                    await self.exchange.send(self.wire.text(f"{number} "))
            case "count":
                for number in range(int(words[1])):
                    await asyncio.sleep(float(words[2]) / 1000 if len(words) > 2 else 0)
                    await self.exchange.send(self.wire.text(f"{words[0]}:{number};"))
            case "error" if self._due(words[1:]):
                await self.exchange.send(self.wire.error(words[0]))
                await self.exchange.end_stream()
                raise _OverError
            case "drop" if self._due(words):
                await self.exchange.cut()
            case "hang":
                await asyncio.sleep(600)
            case "ping":
                for _ in range(int(float(words[0]) * 50)):
                    await self.exchange.send(self.wire.ping())
                    await asyncio.sleep(0.02)

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            await self.exchange.begin_stream()
            await self.exchange.send(self.wire.begin())

    def _due(self, times: list[str]) -> bool:
        return not times or self.number <= int(times[0])


def pieces(text: str, size: int = 5) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]

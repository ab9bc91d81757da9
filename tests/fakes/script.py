"""What a fake model server does, said by the lines of the last user message:

    /say TEXT            streams the text, word by word
    /raw JSON            streams the JSON string as one text delta, as it stands (surrogates, NULs, line separators)
    /stream N [MS]       N text deltas `0 `, `1 `, …, with that delay before each
    /count NAME N [MS]   the same with the deltas `NAME:0;`, `NAME:1;`, …: a gap or a repeat shows in the text itself
    /think TEXT          streams reasoning, word by word
    /cite JSON           cites the page of the JSON object (`url`, `title`)
    /tool NAME JSON      calls a tool; several are parallel calls; the JSON is split into pieces of 5 characters
    /status CODE [TIMES] [RETRY-AFTER]      answers that status to the first TIMES tries of this step (default: all)
    /error KIND [TIMES]  an error event inside of the stream, here (to the first TIMES tries)
    /drop [TIMES]        the connection breaks here (in the first TIMES tries)
    /end [TIMES]         the stream ends here, cleanly, without a finish reason (in the first TIMES tries)
    /slow SECONDS        waits here; before anything else: before the first byte
    /hang                sends nothing more and keeps the connection open
    /ping SECONDS        sends only pings (comments) for so long
    /finish REASON       the finish reason, as the provider calls it
    /quirk NAME          `cut-end`: the connection breaks right after the finish reason; others: see the servers
    /afresh              what stands above is not done: it is an earlier question, that was never answered
    /then                what follows is for the next step, when the tool results are there

Without a command it says what was asked, or what the tools answered. GET /requests gives the requests of late, as
`[{"headers", "body", "peer"}]` (peer: the caller's port).
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
    r"^/(say|raw|stream|count|think|cite|tool|status|error|drop|end|slow|hang|ping|finish|quirk|afresh|then)"
    r"(?: +(.*))?$",
    re.MULTILINE,
)


class Wire(Protocol):
    """How one provider writes it down."""

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
    """The state of one fake server: how often each step was tried, and the requests of late."""

    tries: Counter[str] = field(default_factory=Counter)
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=500))

    async def remember(self, exchange: Exchange) -> bool:
        """Answers GET /requests; keeps a POST. False: it is answered."""
        if exchange.request.method == "GET":
            await exchange.answer(200, list(self.requests))
            return False
        request = exchange.request
        self.requests.append({"headers": request.headers, "body": request.json(), "peer": request.peer})
        return True

    async def play(self, exchange: Exchange, wire: Wire, text: str, step: int, results: list[str]) -> None:
        """Carries the script's step out."""
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


class _OverError(Exception):
    """Nothing more of this answer."""


@dataclass
class _Performance:
    exchange: Exchange
    wire: Wire
    number: int
    """The how-manieth try of this step this is."""
    begun: bool = False

    async def perform(self, commands: list[tuple[str, str]]) -> None:
        calls: list[tuple[str, str]] = []
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

"""The tool calls in the deltas of an OpenAI-compatible server, put together from their pieces."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from backend.chat.models import Json
from executor.llm.arguments import parse_arguments
from executor.llm.clean_text import clean
from executor.llm.events import ModelEvent, ToolCallDelta, ToolCallEnd, ToolCallStart
from executor.llm.provider_data import Collector


@dataclass(slots=True)
class _Call:
    index: int
    provider_id: str | None
    place: int | None
    """The index under which the provider began it."""
    name: str | None = None
    pieces: list[str] = field(default_factory=list)
    """JSON text. It may arrive before the name."""

    @property
    def started(self) -> bool:
        return self.name is not None

    def ended_before(self, function: dict[str, Json]) -> bool:
        """Returns True if a named delta with the same id begins a new call: the input is whole or the name differs."""
        if not self.started or not function.get("name"):
            return False
        if clean(str(function["name"])) != self.name:
            return True
        return bool(function.get("arguments")) and isinstance(parse_arguments("".join(self.pieces) or "-"), dict)


class ToolCalls:
    """The calls of one answer, in the order in which they began.

    `taken` holds the tool call ids of the prompt: a call that arrives with one of them gets a new id. `before_start` is
    called right before a call starts, to end what is open. `wanted_back` collects what the provider wants back with a
    call.
    """

    def __init__(
        self, taken: set[str], before_start: Callable[[list[ModelEvent]], None], wanted_back: Collector
    ) -> None:
        self._taken = set(taken)
        self._before_start = before_start
        self._wanted_back = wanted_back
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def read(self, delta: dict[str, Json], events: list[ModelEvent]) -> None:
        """Adds the events of one delta of `tool_calls`."""
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        call = self._call_of(delta, function)
        if call is None:
            return
        self._wanted_back.read_call(call.index, {**delta, "function": function})
        if not call.started and (name := function.get("name")):
            self._before_start(events)
            self._start(call, clean(str(name)), events)
        arguments = function.get("arguments")
        if not arguments:
            return
        if not isinstance(arguments, str):
            arguments = orjson.dumps(arguments).decode()
        if not (arguments := clean(arguments)):
            return
        call.pieces.append(arguments)
        if call.started:
            events.append(ToolCallDelta(call.index, arguments))

    def end(self, events: list[ModelEvent]) -> None:
        """Ends all calls. One whose name never came is called `unknown`."""
        for call in self._calls:
            if not call.started:
                self._start(call, "unknown", events)
            events.append(ToolCallEnd(call.index, self._wanted_back.of_call(call.index)))

    def _call_of(self, delta: dict[str, Json], function: dict[str, Json]) -> _Call | None:
        """Returns the call that a delta belongs to, or adds one. None if the delta names no call and none is known."""
        index, named = number_of(delta.get("index")), bool(function.get("name"))
        provider_id = delta.get("id") or None
        call = self._find_call(index, provider_id, named)
        if call is None or call.ended_before(function):
            if index is None and not provider_id and not named:
                return None
            call = _Call(len(self._calls), provider_id, index)
            self._calls.append(call)
        call.provider_id = call.provider_id or provider_id
        if index is not None:
            self._by_index[index] = call
        return call

    def _find_call(self, index: int | None, provider_id: Json, named: bool) -> _Call | None:
        """Finds a known call by its index and id. A delta without id, index and name continues the newest.

        Some servers give several calls one index and different ids, or one id and different indexes.
        """
        known = self._by_index.get(index) if index is not None else None
        if known is not None and (not provider_id or known.provider_id in (None, provider_id)):
            return known
        for call in reversed(self._calls):
            other_place = index is not None and call.place is not None and call.place != index
            if provider_id and call.provider_id == provider_id and not (named and other_place):
                return call
        if index is not None:
            return None if named else known
        return self._calls[-1] if self._calls and not provider_id and not named else None

    def _start(self, call: _Call, name: str, events: list[ModelEvent]) -> None:
        call.name = name
        chosen = call.provider_id
        if not isinstance(chosen, str) or chosen in self._taken or len(chosen) > 128 or not chosen.isprintable():
            chosen = f"call_{uuid.uuid4().hex[:24]}"
        self._taken.add(chosen)
        events.append(ToolCallStart(call.index, chosen, name))
        events.extend(ToolCallDelta(call.index, piece) for piece in call.pieces)


def number_of(value: Json) -> int | None:
    """Returns an index, which some servers send as text."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""Tools: their base class, their results, and the toolbox that holds them."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from backend.chat.models import Json
from backend.chat.outcomes import Operation, Outcome
from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from executor.llm.model import ToolSpec
from executor.tools.context import Claims, ToolContext

MAX_NAMED = 20
"""Tools that are named when they are left out."""
logger = logging.getLogger(__name__)
Input = TypeVar("Input", bound=BaseModel)
MOST_TOOLS = 128
"""Tools in one prompt; OpenAI refuses more."""
SEARCH_TOOLS, CALL_TOOL = "search_tools", "call_tool"
FINDERS = (SEARCH_TOOLS, CALL_TOOL)
"""Tools that are in a prompt only if others have no room in it."""


@dataclass(frozen=True, slots=True)
class OperationAccepted:
    """A tool's answer when its work has become an operation, whose outcome comes later.

    `already_started`: an earlier attempt at the call had started the operation.
    """

    operation: Operation
    already_started: bool = False


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A tool's answer that is stored already, as the JSON of its tool response."""

    output: Json


def outcome_of(response: ToolResponse) -> Outcome:
    """Returns the outcome of an operation whose work has ended with this response."""
    if isinstance(response, ErrorResponse):
        return Outcome(False, {"error_type": response.error, "details": response.details}, response.message)
    return Outcome(True, response.model_dump(mode="json", exclude_none=True))


class Tool(ABC, Generic[Input]):
    """One tool. CoPilot's own tools set the properties below as class variables; tools of MCP servers compute them."""

    input_type: type[Input]

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def description(self) -> str: ...

    @property
    def idempotent(self) -> bool:
        """Returns True if a call may be repeated when it is unknown whether it ran. False by default."""
        return False

    @property
    def long_running(self) -> bool:
        """Returns True if calls run as operations, beside the turn. False by default."""
        return False

    @property
    def server(self) -> str | None:
        """The MCP server of the tool, or None for the product's own tools."""
        return None

    @property
    def destructive(self) -> bool:
        """Returns True if a call may destroy something. False by default."""
        return False

    @property
    def time_limit(self) -> float | None:
        """Seconds that a call may take. None means TOOL_TIMEOUT."""
        return None

    @abstractmethod
    async def run(self, call: Input, context: ToolContext) -> ToolResponse | OperationAccepted | StoredResponse:
        """Returns the response for the model and the page. An exception becomes an `error` response."""

    @property
    def spec(self) -> ToolSpec:
        schema = self.input_type.model_json_schema()
        return ToolSpec(self.name, self.description, {k: v for k, v in schema.items() if k != "title"})


class ToolSource(Protocol):
    """A set of tools that may change while the process runs."""

    @property
    def tools(self) -> Mapping[str, Tool[Any]]:
        """The tools that can be called now, by name."""
        ...

    def find(self, name: str) -> Tool[Any] | None:
        """Returns a tool even if it cannot be called now; running it then answers with an error."""
        ...

    def of_owner(self, owner: str) -> ToolSource:
        """Returns the tools of a user, or of an anonymous session; itself if all have the same."""
        ...

    async def prepare(self, owner: str, claims: Claims) -> None:
        """Finds out which tools the owner has, if owners differ. Takes some seconds at most, and never raises."""
        ...

    @property
    def instructions(self) -> tuple[str, str] | None:
        """The source's name and what it tells about its tools; None if it tells nothing or cannot be called now."""
        ...


class Toolbox:
    """The tools that a turn may call, by name: `tools`, then those of `sources`, which may change at any time.

    If they are more than MOST_TOOLS, the sources share the room fairly, and a model finds the others with FINDERS.
    """

    def __init__(self, tools: Iterable[Tool[Any]], sources: Sequence[ToolSource] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._sources = sources
        self._last_left_out: frozenset[str] = frozenset()

    def of_owner(self, owner: str) -> Toolbox:
        """Returns the toolbox of a user, or of an anonymous session."""
        own = [source.of_owner(owner) for source in self._sources]
        same = all(one is other for one, other in zip(own, self._sources, strict=True))
        return self if same else Toolbox(self._tools.values(), own)

    async def prepare(self, owner: str, claims: Claims) -> None:
        """Finds out which tools the owner has. Await it before a turn."""
        if self._sources:
            await asyncio.gather(*(source.prepare(owner, claims) for source in self._sources))

    @property
    def specs(self) -> list[ToolSpec]:
        """The tools to name in a prompt now, at most MOST_TOOLS."""
        specs = dict(self._own_specs)
        shown, hidden = self._shared()
        for source in shown:
            specs |= {name: tool.spec for name, tool in source.items()}
        if hidden:
            specs |= {name: tool.spec for name, tool in self._finders.items()}
        self._tell(hidden)
        return list(specs.values())[:MOST_TOOLS]

    @property
    def hidden(self) -> Mapping[str, Tool[Any]]:
        """The tools that can be called now and have no room in a prompt."""
        return self._shared()[1]

    @property
    def instructions(self) -> list[tuple[str, str]]:
        """The names of the servers that can be called now, each with what it tells about its tools."""
        return [found for source in self._sources if (found := source.instructions) is not None]

    def left_out(self, source: ToolSource) -> int:
        """Returns how many tools of a source have no room in a prompt."""
        return len(self.hidden.keys() & source.tools.keys())

    @cached_property
    def _own_specs(self) -> dict[str, ToolSpec]:
        """The specs of `tools`, made for the first prompt because their schemas take 8 ms."""
        return {name: tool.spec for name, tool in self._tools.items()}

    @cached_property
    def _finders(self) -> dict[str, Tool[Any]]:
        from executor.tools.finders import CallTool, SearchTools  # imported late: it imports this module

        return {tool.name: tool for tool in (SearchTools(self), CallTool())}

    def _shared(self) -> tuple[list[dict[str, Tool[Any]]], dict[str, Tool[Any]]]:
        """Returns the tools of each source that are in a prompt, and all others."""
        seen = set(self._tools)
        available: list[dict[str, Tool[Any]]] = []
        for source in self._sources:
            available.append({name: tool for name, tool in source.tools.items() if name not in seen})
            seen |= available[-1].keys()
        room = max(0, MOST_TOOLS - len(self._tools))
        if sum(map(len, available)) <= room:
            return available, {}
        shares = _fair_shares([len(tools) for tools in available], max(0, room - len(FINDERS)))
        shown = [dict(list(tools.items())[:share]) for tools, share in zip(available, shares, strict=True)]
        everything = {name: tool for tools in available for name, tool in tools.items()}
        return shown, {name: tool for name, tool in everything.items() if not any(name in tools for tools in shown)}

    def _tell(self, hidden: Mapping[str, Tool[Any]]) -> None:
        if (left_out := frozenset(hidden)) != self._last_left_out:
            self._last_left_out = left_out
            names = ", ".join(sorted(left_out)[:MAX_NAMED])
            about = {"number": len(left_out), "most": MOST_TOOLS, "which": names}
            logger.warning("tools have no room in a prompt", extra=about)

    def resolve(self, name: str, given: Json) -> tuple[Tool[Any] | None, Json]:
        """Returns the tool of a call, and its input. A call of CALL_TOOL becomes one of the tool that it names."""
        if name == CALL_TOOL and name not in self._tools and self.hidden and isinstance(given, dict):
            wanted, arguments = given.get("name"), given.get("arguments", {})
            if isinstance(wanted, str) and wanted not in FINDERS and (tool := self.find(wanted)) is not None:
                return tool, arguments
        return self.find(name), given

    def find(self, name: str) -> Tool[Any] | None:
        """Returns the tool of that name, or None. A tool that can be called now comes first.

        FINDERS are there only while tools have no room in a prompt, since no prompt names them otherwise.
        """
        own = self._tools.get(name) or (self._finders[name] if name in FINDERS and self.hidden else None)
        available = (source.tools.get(name) for source in self._sources)
        known = (source.find(name) for source in self._sources)
        return own or next(filter(None, available), None) or next(filter(None, known), None)


def _fair_shares(wanted: Sequence[int], room: int) -> list[int]:
    """Returns how many of `room` places each gets: all get the same, except those that want less."""
    shares = [0] * len(wanted)
    for left, place in zip(
        range(len(wanted), 0, -1), sorted(range(len(wanted)), key=lambda one: wanted[one]), strict=True
    ):
        shares[place] = min(wanted[place], room // left)
        room -= shares[place]
    return shares

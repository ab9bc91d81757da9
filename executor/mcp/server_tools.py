"""The tools of one server as they are offered to models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import mcp_types

from executor.mcp.names import Names
from executor.mcp.resource import READ_RESOURCE, Read, ResourceTool
from executor.mcp.server_entry import Server
from executor.mcp.tasks import ServerTasks
from executor.mcp.tool import Call, OfferedTools, offered_tools, unknown_tool
from executor.tools.tool import Tool

MAX_NAMED = 20
"""Tools that are left out and named in the log and in the health report."""
logger = logging.getLogger(__name__)


class ServerTools:
    """What the newest list of a server's tools becomes. `call` and `read` send calls to the server.

    Has a tool that reads resources after an answer with a link to one (`has_linked`).
    """

    def __init__(self, server: Server, names: Names, call: Call, read: Read, tasks: ServerTasks) -> None:
        self._server = server
        self._names = names
        self._call, self._read = call, read
        self._tasks = tasks
        self._listed: tuple[list[mcp_types.Tool], bool] | None = None
        self._offered: OfferedTools | None = None
        self._readers: dict[str, Tool[Any]] = {}
        self.has_linked = False

    @property
    def is_known(self) -> bool:
        return self._offered is not None

    @property
    def tools(self) -> Mapping[str, Tool[Any]]:
        """The tools by name; empty before the first list."""
        if self._offered is None:
            return {}
        return {**self._offered.tools, **self._readers} if self.has_linked else self._offered.tools

    @property
    def left_out(self) -> dict[str, str]:
        """The first tools that cannot be offered, each with the reason."""
        return {} if self._offered is None else dict(list(self._offered.left_out.items())[:MAX_NAMED])

    def find(self, name: str) -> Tool[Any] | None:
        """Finds a tool even before the first list. None if the server has no such tool."""
        if self._offered is None:
            return unknown_tool(name, self._server, self._call, self._names, self._tasks)
        return self._offered.tools.get(name) or self._readers.get(name)

    def take(self, listed: list[mcp_types.Tool], runs_tasks: bool) -> None:
        """Takes a list of the server. `runs_tasks`: tools that demand a task can be called."""
        if (listed, runs_tasks) == self._listed:
            return
        self._listed = listed, runs_tasks
        name = self._names.of(self._server.name, [*(tool.name for tool in listed), READ_RESOURCE])[READ_RESOURCE]
        has_own = any(tool.name == READ_RESOURCE for tool in listed)
        reader = ResourceTool(name, self._server, self._read)
        self._readers = {name: reader} if self._server.offers(READ_RESOURCE) and not has_own else {}
        before = self._offered
        self._offered = offered_tools(listed, self._server, self._call, self._names, self._tasks, runs_tasks=runs_tasks)
        left_out = self._offered.left_out
        if left_out and (before is None or before.left_out != left_out):
            named = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:MAX_NAMED])
            about = {"server": self._server.name, "number": len(left_out), "which": named}
            logger.warning("tools of an MCP server cannot be offered", extra=about)

"""An MCP server as a source of tools, connected again whenever its connection is lost."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import mcp_types

from backend.logs import Trouble
from executor.llm.clean_text import clean
from executor.mcp.call_slots import MAX_CALLS, RESERVED, CallSlots
from executor.mcp.failures import Reason, ServerUnavailable, SessionLost
from executor.mcp.link import Link, Listed, Mode
from executor.mcp.live_call import LendSlot
from executor.mcp.names import Names
from executor.mcp.oauth.transport import Bearer
from executor.mcp.own_links import OwnLinks
from executor.mcp.server_entry import MAX_INSTRUCTIONS, Server, StdioServer
from executor.mcp.server_tools import ServerTools
from executor.mcp.tasks import Answered, ServerTasks, TaskConnection, TaskState
from executor.mcp.tool import Caller
from executor.metrics import ToolServer
from executor.tools.context import Claims
from executor.tools.tool import Tool, ToolSource

CHECK_EVERY, CHECK_TIMEOUT = 30.0, 30.0
"""Seconds between two checks of the list of tools, and seconds for its answer."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before connecting again; the pause doubles with each failure."""
STEADY_AFTER = 60.0
"""Seconds after which a connection counts as stable, so that the pause begins at FIRST_PAUSE again."""
NEW_SESSION_LIMIT = 15.0
"""Seconds that a call waits for a new session, after the server has forgotten the old one."""
MAX_OLD_LINKS = 4
"""Retired connections whose calls are still under way. The oldest of more is cut."""
NONE: Mapping[str, str] = MappingProxyType({})
logger = logging.getLogger(__name__)


class Connection:
    """A ToolSource. One job must run `run`; any job may call tools.

    `call_limit` is the longest time of a call in seconds, `start_timeout` that of a start. `tried` is set after the
    first attempt to connect.
    """

    def __init__(self, server: Server, call_limit: float, start_timeout: float, names: Names) -> None:
        self.server = server
        self._names = names
        self.tasks = ServerTasks(server, self._ask_unplaced)
        self.tried = asyncio.Event()
        self._call_limit = max(server.timeout or 0.0, call_limit)
        self._start_timeout = server.start_timeout or start_timeout
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._jobs: list[asyncio.Task[None]] = []
        self._mode: Mode = "auto"
        self._tools = ServerTools(server, names, self.call, self.read, self.tasks)
        self._own = OwnLinks(self._new_own_link, self._start_timeout)
        self._renewing = False
        """True from the loss of a session until the next one has begun or failed to. Calls wait meanwhile."""
        self._slots = CallSlots(server.calls or MAX_CALLS + RESERVED)
        self._long_slots = CallSlots(server.calls or MAX_CALLS + RESERVED)
        self._why: Reason | None = None
        self._failures: Counter[str] = Counter()
        self._trouble = Trouble(logger, "an MCP server is unavailable", server=server.name)

    @property
    def tools(self) -> Mapping[str, Tool[Any]]:
        """The server's tools by name; empty while it is not connected.

        Has a tool that reads resources after an answer with a link to one.
        """
        return self._tools.tools if self.is_connected else {}

    @property
    def is_connected(self) -> bool:
        return self._link is not None and self._link.usable

    @property
    def can_tell_of_tasks(self) -> bool:
        """Returns True if it is worth asking for a task: a program that has ended has lost its tasks."""
        return self.is_connected or isinstance(self.server, StdioServer)

    @property
    def instructions(self) -> tuple[str, str] | None:
        """The server's name and its instructions, or those of the file; None without any, or if it is not connected."""
        told: str | bool | None = self.server.instructions
        if told is True:
            told = self._link.instructions if self._link is not None else None
        if self._link is None or not isinstance(told, str) or not told.strip():
            return None
        return self.server.name, clean(told).strip()[:MAX_INSTRUCTIONS]

    @property
    def status(self) -> ToolServer:
        return ToolServer(
            name=self.server.name,
            connected=self.is_connected,
            tools=len(self.tools),
            why=self._why.words if self._why is not None and self._link is None else None,
            failures=dict(self._failures),
            unusable=self._tools.left_out,
        )

    def find(self, name: str) -> Tool[Any] | None:
        """Finds a tool even while the server is not connected. None if the server has no such tool."""
        return self._tools.find(name)

    def of_owner(self, owner: str) -> ToolSource:
        return self

    async def prepare(self, owner: str, claims: Claims) -> None:
        """All users have the same tools."""

    async def call(self, tool: str, arguments: dict[str, Any], caller: Caller) -> Answered:
        """Calls a tool and returns its result, which may be an error of the tool, or what it asks for.

        A call waits for a slot first. If the server has forgotten the session, the call is sent again in a new one.
        Cancelling it notifies the server but does not wait for it. Raises the failures of a call.
        """
        result: Answered = await self._ask(caller, lambda link, lent: link.call(tool, arguments, caller, lent))
        content = result.content if isinstance(result, mcp_types.CallToolResult) else []
        if any(isinstance(block, mcp_types.ResourceLink) for block in content):
            self._tools.has_linked = True
        return result

    async def _ask_unplaced(self, whose: str | None, act: Callable[[TaskConnection], Awaitable[Any]]) -> Any:
        """Runs a request about a task with the connection that made it, beside the slots of the calls."""
        return await self._with_session(Caller(whose or "", whose or ""), act)

    async def read(self, uri: str, caller: Caller) -> mcp_types.ReadResourceResult:
        """Reads a resource, as `call` calls a tool."""
        result: mcp_types.ReadResourceResult = await self._ask(caller, lambda link, _: link.read(uri))
        return result

    async def _ask(self, caller: Caller, act: Callable[[Link, LendSlot], Awaitable[Any]]) -> Any:
        slots = self._long_slots if caller.long else self._slots
        async with slots.slot(caller.session, caller.untimed):
            return await self._with_session(caller, lambda link: act(link, partial(slots.lent, caller.session)))

    async def _with_session(self, caller: Caller, act: Callable[[Link], Awaitable[Any]]) -> Any:
        for _ in range(2):
            owner = await self._owner_of(caller)
            link = await self._link_for(caller, owner)
            try:
                answer = await act(link)
            except SessionLost:
                self._renew(link)
            else:
                if isinstance(answer, TaskState):
                    self._own.hold(owner, works=not answer.has_ended)
                return answer
        raise ServerUnavailable("it does not keep its sessions")

    async def _link_for(self, caller: Caller, owner: str) -> Link:
        if self.server.per is not None:
            with caller.untimed():
                return await self._own.link_of(owner)
        if self._link is None and self._renewing:
            await self._until_renewed()
        if self._link is None:
            raise ServerUnavailable(self._why.words if self._why is not None else "")
        return self._link

    async def _owner_of(self, caller: Caller) -> str:
        """Returns the owner of the connection for this call, if connections have owners."""
        return caller.session if self.server.per == "session" else caller.user

    def _renew(self, lost: Link) -> None:
        """Begins a new session in place of `lost`, for which this call and later ones wait."""
        lost.retire()
        if self.server.per is None and self._link is lost:
            self._link, self._renewing = None, True
            self._linked.clear()

    async def _until_renewed(self) -> None:
        """Waits until the new session has begun or failed to. Raises ServerUnavailable after NEW_SESSION_LIMIT."""
        try:
            async with asyncio.timeout(NEW_SESSION_LIMIT) as clock:
                await self._linked.wait()
        except TimeoutError:
            if not clock.expired():
                raise
            raise ServerUnavailable("it does not begin a new session") from None

    async def run(self) -> None:
        """Connects, and connects again whenever that fails or the connection is lost. Never returns.

        The pause between two attempts doubles, up to LONGEST_PAUSE, until a connection stays for STEADY_AFTER.
        """
        pause = FIRST_PAUSE
        folder = TemporaryDirectory(prefix="copilot-mcp-", ignore_cleanup_errors=True)
        sweeping = asyncio.create_task(self._own.sweep())
        try:
            while True:
                begun = time.monotonic()
                why = await self._stay_connected(Path(folder.name))
                self.tried.set()
                if why is None:  # a call waits for a new session
                    continue
                if time.monotonic() - begun > STEADY_AFTER:
                    pause = FIRST_PAUSE
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            sweeping.cancel()
            await self._end_jobs()
            folder.cleanup()

    async def _stay_connected(self, folder: Path) -> Reason | None:
        """Holds one connection until it takes no more calls. Returns the reason, or None if it was retired."""
        link = self._new_link(folder, self._tools.take)
        self._start(link)
        try:
            await link.settled()
            if link.up.is_set() and not link.down.is_set():
                self._adopt(link)
            await link.down.wait()
        finally:
            if self._link is link:
                self._link = None
                self._linked.clear()
        if link.exited_early:  # servers of the Rust SDK before 3.0 exit if the first request is not `initialize`
            self._mode = "legacy" if self._mode == "auto" else "auto"
        if link.why is not None:
            self._renewing = False
            self._linked.set()  # wakes the calls that wait; they find no connection
            self._linked.clear()
            self._why = link.why
            self._failures[link.why.kind] += 1
            self._trouble.met(link.why.words)
        return link.why

    def _new_link(
        self,
        folder: Path,
        listed: Listed = lambda *_: None,
        bearer: Bearer | None = None,
        headers: Mapping[str, str] = NONE,
    ) -> Link:
        check = CHECK_EVERY, CHECK_TIMEOUT
        return Link(self.server, folder, self._mode, self._call_limit, check, listed, bearer, headers)

    def _new_own_link(self, folder: Path, owner: str) -> Link:
        return self._new_link(folder)

    def _start(self, link: Link) -> None:
        job = asyncio.create_task(link.run(self._start_timeout), name=f"MCP server {self.server.name}")
        self._jobs = [one for one in self._jobs if not one.done()]
        for old in self._jobs[:-MAX_OLD_LINKS]:
            old.cancel()
        self._jobs.append(job)

    def _adopt(self, link: Link) -> None:
        self._link, self._renewing = link, False
        self._why = None
        self._linked.set()
        self._trouble.over()
        self.tried.set()
        about = {"server": self.server.name, "tools": len(self.tools), "protocol": link.protocol}
        logger.info("an MCP server is connected", extra=about)

    async def _end_jobs(self) -> None:
        """Cancels the connections, and again if this is cancelled, since disconnecting may wait for a server."""
        for _ in range(2):
            jobs = [job for job in self._jobs if not job.done()]
            for job in jobs:
                job.cancel()
            try:
                await self._own.end()
                if jobs:
                    await asyncio.wait(jobs)
            except asyncio.CancelledError:
                continue
            return

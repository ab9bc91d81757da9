"""A server that knows each user: every user has a connection and a list of tools of their own."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcp_types

from executor.llm.clean_text import clean
from executor.mcp.connection import Connection
from executor.mcp.failures import Reason, ServerBusy, ServerUnavailable
from executor.mcp.link import Link
from executor.mcp.names import Names
from executor.mcp.oauth.challenge import SignInNeeded
from executor.mcp.oauth.transport import Bearer
from executor.mcp.own_links import OwnLinks
from executor.mcp.server_entry import MAX_INSTRUCTIONS, HttpServer
from executor.mcp.server_tools import ServerTools
from executor.mcp.tool import Caller
from executor.metrics import ToolServer
from executor.tools.context import Claims
from executor.tools.tool import Tool, ToolSource

MOST_USERS = 1_000
"""The most users whose tools are remembered. The user who called least recently is forgotten first."""
MOST_CONNECTIONS = 64
"""Connections of one executor at once. They are cheaper than programs, and more users wait for theirs."""
NOT_AGAIN = 30.0
"""After a turn has waited for a user's tools in vain, turns of that user do not wait for this many seconds."""
PREPARE_LIMIT = 3.0
"""Seconds that a turn waits for its user's tools at its start. Later ones are there for its next step."""
ANONYMOUS = "it needs a user who is signed in here; this conversation is anonymous"


@dataclass(slots=True)
class _User:
    """The state of one user's connection. `identity` is that of the newest list of tools; empty if there was none."""

    tools: ServerTools
    identity: str = ""
    instructions: str | None = None
    failed_at: float = -NOT_AGAIN
    """When a turn has last waited for the tools without success, on the monotonic clock."""


class PersonalConnection(Connection):
    """A ToolSource whose tools differ from user to user (`of_owner`).

    A connection belongs to an identity at the server, a text without line breaks: when that changes, calls get a new
    connection, and the tools are listed again.
    """

    def __init__(self, server: HttpServer, call_limit: float, start_timeout: float, names: Names) -> None:
        super().__init__(server, call_limit, start_timeout, names)
        self._own = OwnLinks(self._new_own_link, self._start_timeout, MOST_CONNECTIONS)
        self._users: OrderedDict[str, _User] = OrderedDict()

    @abstractmethod
    async def _identity_of(self, caller: Caller) -> str:
        """Returns the identity of a user at the server. Raises ServerUnavailable and SignInNeeded."""

    @abstractmethod
    def _login_of(self, identity: str, owner: str) -> tuple[Bearer | None, Mapping[str, str]]:
        """Returns what a user's connection sends: tokens, and headers."""

    def tools_before(self, owner: str) -> Mapping[str, Tool[Any]]:
        """The tools that a user has before the server has listed any."""
        return {}

    @property
    def tools(self) -> Mapping[str, Tool[Any]]:
        return {}

    @property
    def can_tell_of_tasks(self) -> bool:
        return True

    @property
    def instructions(self) -> tuple[str, str] | None:
        return None

    @property
    def status(self) -> ToolServer:
        """Counts as connected unless the newest connection of a user failed for a reason other than sign-in."""
        known = [user.tools for user in self._users.values() if user.tools.is_known]
        return ToolServer(
            name=self.server.name,
            connected=self._why is None,
            tools=max((len(one.tools) for one in known), default=0),
            why=None if self._why is None else self._why.words,
            failures=dict(self._failures),
            unusable=known[-1].left_out if known else {},
        )

    def of_owner(self, owner: str) -> ToolSource:
        return UsersTools(self, owner)

    async def prepare(self, owner: str, claims: Claims) -> None:
        if not is_user(owner) or time.monotonic() - self.user(owner).failed_at < NOT_AGAIN:
            return
        try:
            with suppress(SignInNeeded):
                async with asyncio.timeout(PREPARE_LIMIT):
                    await self._list_for(Caller("", owner, claims=claims))
        except (TimeoutError, ServerUnavailable, ServerBusy):
            self.user(owner).failed_at = time.monotonic()

    async def _list_for(self, caller: Caller) -> None:
        """Reads the user's tools, unless they are known. Raises SignInNeeded, ServerUnavailable and ServerBusy."""
        if not is_user(caller.user):
            raise ServerUnavailable(ANONYMOUS)
        user = self.user(caller.user)
        if user.identity != await self._identity_of(caller) or not user.tools.is_known:
            await self._link_for(caller, await self._owner_of(caller))

    def user(self, owner: str) -> _User:
        """Returns what is known of a user."""
        known = self._users.get(owner)
        if known is None:
            known = self._users[owner] = _User(self._new_tools())
            if len(self._users) > MOST_USERS:
                self._users.popitem(last=False)
        self._users.move_to_end(owner)
        return known

    def _forget(self, owner: str) -> None:
        self._users.pop(owner, None)

    def _new_tools(self) -> ServerTools:
        return ServerTools(self.server, self._names, self.call, self.read, self.tasks)

    async def run(self) -> None:
        """Closes idle connections. Never returns."""
        self.tried.set()
        try:
            await self._own.sweep()
        finally:
            await self._end_jobs()

    async def _owner_of(self, caller: Caller) -> str:
        if not is_user(caller.user):
            raise ServerUnavailable(ANONYMOUS)
        return f"{await self._identity_of(caller)}\n{caller.user}"

    async def _link_for(self, caller: Caller, owner: str) -> Link:
        try:
            with caller.untimed():
                return await self._own.link_of(owner)
        except ServerUnavailable as unavailable:
            self._note(unavailable.why)
            raise

    def _new_own_link(self, folder: Path, owner: str) -> Link:
        identity, _, user = owner.partition("\n")
        links: list[Link] = []

        def listed(tools: list[mcp_types.Tool], runs_tasks: bool) -> None:
            known = self.user(user)
            if known.identity != identity:
                known.tools, known.identity = self._new_tools(), identity
            known.tools.take(tools, runs_tasks)
            known.instructions = links[0].instructions
            self._note(None)

        links.append(self._new_link(folder, listed, *self._login_of(identity, user)))
        return links[0]

    def _note(self, why: Reason | None) -> None:
        """Notes why the newest connection of a user has failed, or that it has not."""
        self._why = why
        if why is None:
            self._trouble.over()
        else:
            self._failures[why.kind] += 1
            self._trouble.met(why.words)


class UsersTools:
    """The tools of one user of a PersonalConnection, as a ToolSource."""

    def __init__(self, connection: PersonalConnection, owner: str) -> None:
        self._connection = connection
        self._owner = owner

    @property
    def tools(self) -> Mapping[str, Tool[Any]]:
        if not is_user(self._owner):
            return {}
        known = self._connection.user(self._owner).tools
        return known.tools if known.is_known else self._connection.tools_before(self._owner)

    @property
    def instructions(self) -> tuple[str, str] | None:
        told: str | bool | None = self._connection.server.instructions
        if told is True:
            told = self._connection.user(self._owner).instructions if is_user(self._owner) else None
        if not isinstance(told, str) or not told.strip():
            return None
        return self._connection.server.name, clean(told).strip()[:MAX_INSTRUCTIONS]

    def find(self, name: str) -> Tool[Any] | None:
        known = self._connection.user(self._owner).tools
        return known.tools.get(name) or self._connection.tools_before(self._owner).get(name) or known.find(name)

    def of_owner(self, owner: str) -> ToolSource:
        return self._connection.of_owner(owner)

    async def prepare(self, owner: str, claims: Claims) -> None:
        await self._connection.prepare(owner, claims)


def is_user(owner: str) -> bool:
    """Returns True for the key of a user, and False for that of an anonymous session."""
    return owner.startswith("user:")

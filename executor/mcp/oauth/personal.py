"""A server at which each user signs in: every user has a connection, a list of tools and tokens of their own.

Until a user has signed in, the only tool is `<server>_sign_in`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcp_types

from backend.chat.oauth.outside import NotReached
from backend.chat.oauth.sealing import Seal
from backend.chat.oauth.values import SIGN_IN, SignIn, hash_of, place_of_sign_in
from backend.chat.store.tool_servers import sign_ins
from backend.chat.store.tool_servers.sign_ins import SignInRow
from backend.config import Settings
from backend.errors import Unavailable
from backend.ids import SessionId
from backend.postgres import Database
from executor.llm.clean_text import clean
from executor.mcp.connection import Connection
from executor.mcp.failures import ServerBusy, ServerUnavailable, SignInLink, Why
from executor.mcp.link import Link
from executor.mcp.names import Names
from executor.mcp.oauth.challenge import Challenge, SignInNeeded
from executor.mcp.oauth.discovery import Discovery, SignInImpossible
from executor.mcp.oauth.tokens import UserTokens
from executor.mcp.offer import Offer
from executor.mcp.schemas import input_schema
from executor.mcp.server_entry import MAX_INSTRUCTIONS, HttpServer
from executor.mcp.tasks import Answered
from executor.mcp.tool import Caller, McpTool
from executor.metrics import ToolServer
from executor.tools.tool import Tool, ToolSource

SIGN_IN_TOOL = "sign_in"
MOST_USERS = 1_000
"""Users whose tools are remembered; those of the user that was away for the longest are forgotten first."""
PREPARE_LIMIT = 3.0
"""Seconds that a turn waits for its user's tools at its start. Later ones are there for its next step."""
MAX_NAMES = 50
_NO_ARGUMENTS = {"type": "object", "properties": {}}
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _User:
    """What is known of a user. `grant` is the id of the grant with which the tools were listed; None: signed out."""

    offer: Offer
    grant: str | None = None
    instructions: str | None = None


class PersonalConnection(Connection):
    """A ToolSource whose tools differ from user to user (`of_owner`)."""

    def __init__(
        self, server: HttpServer, settings: Settings, call_limit: float, names: Names, database: Database, seal: Seal
    ) -> None:
        super().__init__(server, call_limit, settings.mcp_start_timeout, names)
        self._tokens = UserTokens(server.name, server.url.get_secret_value(), database, seal)
        self._discovery = Discovery(server, database, seal, settings.platform_base_url)
        self._base = settings.platform_base_url.rstrip("/")
        self._lives = settings.question_days * 86_400
        self._database = database
        self._seal = seal
        self._users: OrderedDict[str, _User] = OrderedDict()
        self.sign_in_name = names.of(server.name, [SIGN_IN_TOOL])[SIGN_IN_TOOL]

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
        """It is connected unless the newest connection of a user has failed for another reason than the sign-in."""
        known = [user.offer for user in self._users.values() if user.offer.is_known]
        return ToolServer(
            name=self.server.name,
            connected=self._why is None,
            tools=max((len(offer.tools) for offer in known), default=0),
            why=None if self._why is None else self._why.words,
            failures=dict(self._failures),
            unusable=known[-1].left_out if known else {},
        )

    def of_owner(self, owner: str) -> ToolSource:
        return UsersTools(self, owner)

    async def prepare(self, owner: str) -> None:
        if not _is_user(owner):
            return
        with suppress(TimeoutError, SignInNeeded, ServerUnavailable, ServerBusy):
            async with asyncio.timeout(PREPARE_LIMIT):
                await self._list_for(owner)

    async def _list_for(self, owner: str) -> None:
        """Reads the user's tools, unless they are known. Raises SignInNeeded, ServerUnavailable and ServerBusy."""
        grant = await self._grant_of(owner)
        user = self.user(owner)
        if user.grant != grant or not user.offer.is_known:
            await self._reach(f"{grant}\n{owner}")

    async def _reach(self, owner: str) -> Link:
        try:
            return await self._own.link_of(owner)
        except ServerUnavailable as unavailable:
            self._note(unavailable.why)
            raise

    async def _link_for(self, caller: Caller, owner: str) -> Link:
        with caller.untimed():
            return await self._reach(owner)

    def user(self, owner: str) -> _User:
        """Returns what is known of a user."""
        known = self._users.get(owner)
        if known is None:
            known = self._users[owner] = _User(self._new_offer())
            if len(self._users) > MOST_USERS:
                self._users.popitem(last=False)
        self._users.move_to_end(owner)
        return known

    def _new_offer(self) -> Offer:
        return Offer(self.server, self._names, self.call, self.read, self.tasks)

    async def run(self) -> None:
        """Closes idle connections. Never returns."""
        self.tried.set()
        try:
            await self._own.sweep()
        finally:
            await self._end_jobs()
            await self._tokens.end()

    async def call(self, tool: str, arguments: dict[str, Any], caller: Caller) -> Answered:
        """Calls a tool as the user of the call. Raises SignInLink if the user must sign in first."""
        try:
            answered = await super().call(tool, arguments, caller)
        except SignInNeeded as needed:
            raise await self._link_to_sign_in(needed.challenge, caller) from None
        return answered

    async def read(self, uri: str, caller: Caller) -> mcp_types.ReadResourceResult:
        try:
            return await super().read(uri, caller)
        except SignInNeeded as needed:
            raise await self._link_to_sign_in(needed.challenge, caller) from None

    async def sign_in(self, tool: str, arguments: dict[str, Any], caller: Caller) -> Answered:
        """Signs the user in, and returns the names of the tools. Raises as `call` does."""
        try:
            with caller.untimed():
                await self._list_for(caller.user)
        except SignInNeeded as needed:
            raise await self._link_to_sign_in(needed.challenge, caller) from None
        names = list(self.user(caller.user).offer.tools)
        shown = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
        text = f"The user is signed in at {self.server.name}. Its tools can be called now: {shown}"
        return mcp_types.CallToolResult(content=[mcp_types.TextContent(text=text)])

    async def _owner_of(self, caller: Caller) -> str:
        if not _is_user(caller.user):
            raise ServerUnavailable("it needs a user who is signed in here; this conversation is anonymous")
        grant = await self._grant_of(caller.user)
        return f"{grant}\n{caller.user}" + (f"\n{caller.session}" if self.server.per == "session" else "")

    async def _grant_of(self, owner: str) -> str:
        """Returns the id of the user's grant. Raises SignInNeeded and ServerUnavailable."""
        try:
            held = await self._tokens.find(owner)
        except Unavailable:
            raise ServerUnavailable("the tokens of users cannot be read now") from None
        if held is None:
            self._signed_out(owner)
            raise SignInNeeded(Challenge())
        return held.grant.id

    def _signed_out(self, owner: str) -> None:
        self._users.pop(owner, None)

    def _new_own_link(self, folder: Path, owner: str) -> Link:
        grant, user, *_ = owner.split("\n")

        async def bearer(failed: str | None) -> str | None:
            return await self._tokens.valid(user, grant, failed)

        link: list[Link] = []

        def listed(tools: list[mcp_types.Tool], runs_tasks: bool) -> None:
            known = self.user(user)
            if known.grant != grant:
                known.offer, known.grant = self._new_offer(), grant
            known.offer.take(tools, runs_tasks)
            known.instructions = link[0].instructions
            self._why = None
            self._trouble.over()

        link.append(self._new_link(folder, listed, bearer))
        return link[0]

    async def _link_to_sign_in(self, challenge: Challenge, caller: Caller) -> SignInLink | ServerUnavailable:
        """Returns what to raise: a link by which the user signs in, or why there is none."""
        context = None if caller.inputs is None else caller.inputs.context
        if not challenge.more:
            self._signed_out(caller.user)
        if context is None:
            return ServerUnavailable("the user must sign in there first")
        try:
            granted = await self._tokens.find(caller.user) if challenge.more else None
            scopes = "" if granted is None else granted.grant.scopes
            told = challenge if challenge.metadata or challenge.more else None
            authority, wanted = await self._discovery.find(told, scopes)
            ticket = secrets.token_urlsafe(32)
            id, link = hash_of(ticket), f"{self._base}{SIGN_IN}?ticket={ticket}"
            sealed = self._seal.seal(SignIn(authority, link, wanted).as_json(), place_of_sign_in(id))
            row = SignInRow(id, caller.user, self.server.name, SessionId(caller.session), sealed, is_done=False)
            async with self._database.transaction() as c:
                await sign_ins.add(c, row, lives=self._lives)
        except SignInImpossible as why:
            logger.warning(
                "users cannot sign in at an MCP server", extra={"server": self.server.name, "error": str(why)}
            )
            return ServerUnavailable(str(why))
        except (Unavailable, NotReached):
            return ServerUnavailable("nobody can sign in there now")
        return self._as_question(link, more=challenge.more)

    def _as_question(self, link: str, *, more: bool) -> SignInLink:
        name = self.server.name
        words = f"{name} needs more rights for this. Sign in there again." if more else f"Sign in to use {name}."
        asked = mcp_types.ElicitRequestURLParams(message=words, url=link, elicitation_id=hash_of(link)[:32])
        told = f"The tool server {name} needs the user to sign in first, at this link: {link}"
        return SignInLink(told, [asked])

    def _note(self, why: Why | None) -> None:
        """Notes why the newest connection of a user has failed."""
        if why is not None:
            self._why = why
            self._failures[why.reason] += 1
            self._trouble.met(why.words)


class UsersTools:
    """The tools of one user of a PersonalConnection, as a ToolSource."""

    def __init__(self, connection: PersonalConnection, owner: str) -> None:
        self._connection = connection
        self._owner = owner

    @property
    def tools(self) -> Mapping[str, Tool[Any]]:
        if not _is_user(self._owner):
            return {}
        user = self._connection.user(self._owner)
        return user.offer.tools if user.offer.is_known else {self._connection.sign_in_name: self._sign_in_tool()}

    @property
    def instructions(self) -> tuple[str, str] | None:
        told: str | bool | None = self._connection.server.instructions
        if told is True:
            told = self._connection.user(self._owner).instructions if _is_user(self._owner) else None
        if not isinstance(told, str) or not told.strip():
            return None
        return self._connection.server.name, clean(told).strip()[:MAX_INSTRUCTIONS]

    def find(self, name: str) -> Tool[Any] | None:
        known = self._connection.user(self._owner).offer
        if name == self._connection.sign_in_name and name not in known.tools:
            return self._sign_in_tool()
        return known.find(name)

    def of_owner(self, owner: str) -> ToolSource:
        return self._connection.of_owner(owner)

    async def prepare(self, owner: str) -> None:
        await self._connection.prepare(owner)

    def _sign_in_tool(self) -> McpTool:
        name = self._connection.server.name
        remote = mcp_types.Tool(
            name=SIGN_IN_TOOL,
            description=f"Asks the user to sign in at the tool server {name}, whose tools can be called after that. "
            "Call it when the user wants something for which this server seems to be needed.",
            input_schema=_NO_ARGUMENTS,
            annotations=mcp_types.ToolAnnotations(read_only_hint=True),
        )
        schema = input_schema(_NO_ARGUMENTS)
        return McpTool(self._connection.sign_in_name, remote, self._connection.server, schema, self._connection.sign_in)


def _is_user(owner: str) -> bool:
    return owner.startswith("user:")

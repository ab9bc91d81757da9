"""A server at which each user signs in. Until a user has signed in, the only tool is `<server>_sign_in`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

import mcp_types

from backend.chat.oauth.sealing import Seal
from backend.chat.oauth.values import SIGN_IN, NotReached, SignIn, hash_of, place_of_sign_in
from backend.chat.store.tool_servers import sign_ins
from backend.chat.store.tool_servers.sign_ins import SignInRow
from backend.config import Settings
from backend.errors import Unavailable
from backend.ids import SessionId
from backend.postgres import Database
from executor.mcp.failures import ServerUnavailable, SignInLink
from executor.mcp.names import Names
from executor.mcp.oauth.challenge import Challenge, SignInNeeded
from executor.mcp.oauth.discovery import Discovery, SignInImpossible
from executor.mcp.oauth.tokens import UserTokens
from executor.mcp.oauth.transport import Bearer
from executor.mcp.personal import PersonalConnection, is_user
from executor.mcp.schemas import input_schema
from executor.mcp.server_entry import HttpServer
from executor.mcp.tasks import Answered
from executor.mcp.tool import Caller, McpTool
from executor.tools.tool import Tool

SIGN_IN_TOOL = "sign_in"
MAX_NAMES = 50
_NO_ARGUMENTS = {"type": "object", "properties": {}}
logger = logging.getLogger(__name__)


class SignedInConnection(PersonalConnection):
    """A PersonalConnection whose users have tokens. Their identity is that of their grant: new with each sign-in."""

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
        self._sign_in_tool = self._new_sign_in_tool(names)

    def tools_before(self, owner: str) -> Mapping[str, Tool[Any]]:
        return {self._sign_in_tool.name: self._sign_in_tool}

    async def run(self) -> None:
        try:
            await super().run()
        finally:
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
            await self._list_for(caller)
        except SignInNeeded as needed:
            raise await self._link_to_sign_in(needed.challenge, caller) from None
        names = list(self.user(caller.user).tools.tools)
        shown = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
        text = f"The user is signed in at {self.server.name}. Its tools can be called now: {shown}"
        return mcp_types.CallToolResult(content=[mcp_types.TextContent(text=text)])

    async def _identity_of(self, caller: Caller) -> str:
        try:
            held = await self._tokens.find(caller.user)
        except Unavailable:
            raise ServerUnavailable("the tokens of users cannot be read now") from None
        if held is None:
            self._forget(caller.user)
            raise SignInNeeded(Challenge())
        return held.grant.id

    def _login_of(self, identity: str, owner: str) -> tuple[Bearer | None, Mapping[str, str]]:
        async def bearer(failed: str | None) -> str | None:
            return await self._tokens.valid(owner, identity, failed)

        return bearer, {}

    async def _link_to_sign_in(self, challenge: Challenge, caller: Caller) -> SignInLink | ServerUnavailable:
        """Returns what to raise: a link by which the user signs in, or why there is none."""
        if not challenge.more:
            self._forget(caller.user)
        if caller.inputs is None:
            return ServerUnavailable("the user must sign in there first")
        assert is_user(caller.user), "nobody else is asked to sign in"
        try:
            granted = await self._tokens.find(caller.user) if challenge.more else None
            scopes = "" if granted is None else granted.grant.scopes
            told = challenge if challenge.metadata or challenge.more else None
            async with self._database.connection() as c:
                in_vain = await sign_ins.has_abandoned_sign_in(c, caller.user, self.server.name)
            authority, wanted = await self._discovery.find(told, scopes, in_vain=in_vain)
            ticket = secrets.token_urlsafe(32)
            id, link = hash_of(ticket), f"{self._base}{SIGN_IN}?ticket={ticket}"
            sealed = self._seal.seal(SignIn(authority, link, wanted).as_json(), place_of_sign_in(id))
            row = SignInRow(id, caller.user, self.server.name, SessionId(caller.session), sealed, is_done=False)
            async with self._database.transaction() as c:
                await sign_ins.add(c, row, lives=self._lives)
        except SignInImpossible as why:
            about = {"server": self.server.name, "error": str(why)}
            logger.warning("users cannot sign in at an MCP server", extra=about)
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

    def _new_sign_in_tool(self, names: Names) -> McpTool:
        remote = mcp_types.Tool(
            name=SIGN_IN_TOOL,
            description=f"Asks the user to sign in at the tool server {self.server.name}, whose tools can be called "
            "after that. Call it when the user wants something for which this server seems to be needed.",
            input_schema=_NO_ARGUMENTS,
            annotations=mcp_types.ToolAnnotations(read_only_hint=True),
        )
        name = names.of(self.server.name, [SIGN_IN_TOOL])[SIGN_IN_TOOL]
        return McpTool(name, remote, self.server, input_schema(_NO_ARGUMENTS), self.sign_in)

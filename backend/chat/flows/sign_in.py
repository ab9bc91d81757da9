"""Signs a user in at a tool server: from the link in the conversation over the authorization server and back.

A link has a ticket, which says who signs in where. Nobody is authenticated here, so the flow is bound to one browser:
the first page tells whose conversation gets access, sets a random cookie, and leads on by a URL that fits this cookie
only. Another page can lead a browser to the first page, but cannot know the URL behind it. The way back wants the
cookie too. So nobody can have somebody else sign in for them without that page.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from backend.chat.flows.complete import complete_operation
from backend.chat.models import Turn
from backend.chat.oauth.sealing import Seal, Unreadable
from backend.chat.oauth.values import (
    CALLBACK,
    AuthorizationServer,
    GrantRefused,
    NotReached,
    OAuthTokens,
    SignIn,
    grant_from_json,
    grant_json,
    hash_of,
    place_of_grant,
    place_of_sign_in,
)
from backend.chat.outcomes import Outcome
from backend.chat.resources import Resources
from backend.chat.store.tool_servers import clients, grants, sign_ins
from backend.chat.store.tool_servers.grants import Grant
from backend.chat.store.tool_servers.sign_ins import SignInRow
from backend.errors import AlreadyCompleted, OperationGone, OperationNotFound


class VisitState(StrEnum):
    """The state of a user's visit to the sign-in pages. All but OPEN are final."""

    OPEN = "open"
    SIGNED_IN = "signed_in"
    DENIED = "denied"
    GONE = "gone"
    OTHER_BROWSER = "other_browser"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SignInVisit:
    """The content of a page of the sign-in. `owner` is the user whose conversations get access. `why` explains FAILED
    without secrets.

    `cookie` is the name and the value that bind the flow to the browser, `go` the proof that its first page was seen.
    The caller publishes `next_turn`.
    """

    end: VisitState
    server: str = ""
    owner: str = ""
    host: str = ""
    why: str = ""
    cookie: tuple[str, str] | None = None
    go: str = ""
    next_turn: Turn | None = None


GONE = SignInVisit(VisitState.GONE)
REVOKED_WITHIN = 20.0
"""Seconds in which tokens are revoked, at all servers together."""
Cookies = Callable[[str], str | None]
_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")


class SignInFlow:
    """The flow, as the routes of an API process drive it."""

    def __init__(self, resources: Resources, seal: Seal) -> None:
        self._resources = resources
        self._seal = seal
        self._redirect_uri = f"{resources.settings.platform_base_url.rstrip('/')}{CALLBACK}"

    async def look(self, ticket: str, cookies: Cookies) -> SignInVisit:
        """Returns what the first page says. Raises Unavailable."""
        async with self._resources.database.connection() as c:
            row = await sign_ins.find(c, hash_of(ticket))
        return GONE if row is None else await self._look_at(row, cookies)

    async def _look_at(self, row: SignInRow, cookies: Cookies) -> SignInVisit:
        sign_in = self._opened(row)
        if sign_in is None:
            return GONE
        if row.is_done:  # the process that stored the tokens may have died before it answered the question
            return SignInVisit(
                VisitState.SIGNED_IN, row.server, next_turn=await self._answer(row, sign_in, {"approved": True})
            )
        async with self._resources.database.connection() as c:
            question = await sign_ins.question_with(c, row.session_id, sign_in.link)
        if question is not None and not question.pending:
            return GONE
        host = urlsplit(sign_in.authority.authorization_endpoint).netloc.rpartition("@")[2]
        browser = _browser_of(row, cookies) or secrets.token_urlsafe(32)
        cookie, go = (_cookie_of(row), browser), self._go(row, browser)
        return SignInVisit(VisitState.OPEN, row.server, row.owner.removeprefix("user:"), host, cookie=cookie, go=go)

    async def leave(self, ticket: str, go: str, cookies: Cookies) -> str | SignInVisit:
        """Returns the URL at the authorization server, or the page to show instead. Raises Unavailable."""
        async with self._resources.database.connection() as c:
            row = await sign_ins.find(c, hash_of(ticket))
        if row is None:
            return GONE
        visit = await self._look_at(row, cookies)
        sign_in, browser = self._opened(row), _browser_of(row, cookies)
        if visit.end is not VisitState.OPEN or sign_in is None or not browser:
            return visit
        if not hmac.compare_digest(go.encode(), self._go(row, browser).encode()):
            return visit
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
        begun = replace(sign_in, verifier=verifier, browser=hash_of(browser))
        sealed = self._seal.seal(begun.as_json(), place_of_sign_in(row.id))
        async with self._resources.database.connection() as c:
            await sign_ins.begin(c, row.id, sealed, hash_of(state))
        return _authorization_url(sign_in, self._redirect_uri, state, verifier)

    async def come_back(self, given: Mapping[str, str], cookies: Cookies) -> SignInVisit:
        """Takes the user back from the authorization server, stores the tokens and answers the question.

        `given` is the query: `state`, with `code` or `error`, and perhaps `iss`. Raises Unavailable.
        """
        state_hash = hash_of(given.get("state", ""))
        async with self._resources.database.connection() as c:
            row = await sign_ins.with_state(c, state_hash)
            if row is None:
                return GONE
            began = self._opened(row)
            if began is None or not hmac.compare_digest(hash_of(_browser_of(row, cookies)), began.browser):
                return SignInVisit(VisitState.OTHER_BROWSER, row.server)
            row = await sign_ins.take_state(c, state_hash)
        sign_in = None if row is None else self._opened(row)
        if row is None or sign_in is None or row.is_done:
            return GONE
        try:
            tokens = await self._tokens(sign_in, given)
        except _Denied:
            return SignInVisit(
                VisitState.DENIED, row.server, next_turn=await self._answer(row, sign_in, {"declined": True})
            )
        except (GrantRefused, NotReached) as error:
            return SignInVisit(VisitState.FAILED, row.server, why=str(error))
        try:
            replaced = await self._store(row, sign_in.authority, tokens)
        except _Deleted:
            await _revoke(sign_in.authority, tokens)
            return GONE
        await self._revoke_replaced(replaced, sign_in.authority)
        return SignInVisit(
            VisitState.SIGNED_IN, row.server, next_turn=await self._answer(row, sign_in, {"approved": True})
        )

    async def _tokens(self, sign_in: SignIn, given: Mapping[str, str]) -> OAuthTokens:
        """Returns the tokens for the code that the server has given. Raises _Denied, GrantRefused and NotReached."""
        from backend.chat.oauth import token_endpoint  # aiohttp takes 0.1 s, which few processes need

        authority, issuer = sign_in.authority, given.get("iss")
        if (issuer is not None and issuer != authority.issuer) or (issuer is None and authority.names_issuer):
            raise GrantRefused("another server has answered than the one that was asked")  # RFC 9207
        if (error := given.get("error")) is not None:
            if error == "access_denied":
                raise _Denied
            raise GrantRefused(error[:100] if error.isascii() and error.isprintable() else "it has refused")
        try:
            tokens = await token_endpoint.exchange(
                authority, given.get("code", ""), sign_in.verifier, self._redirect_uri
            )
        except GrantRefused as refused:
            if str(refused) == "invalid_client":  # it has forgotten this client; the next link registers a new one
                async with self._resources.database.connection() as c:
                    await clients.forget(c, authority.issuer, self._redirect_uri)
            raise
        return replace(tokens, scopes=tokens.scopes or sign_in.scopes)

    async def _store(self, row: SignInRow, authority: AuthorizationServer, tokens: OAuthTokens) -> Grant | None:
        """Stores the tokens. Returns the grant that they replace. Raises _Deleted if the session or the user has been
        deleted meanwhile."""
        sealed = self._seal.seal(grant_json(authority, tokens), place_of_grant(row.owner, row.server))
        async with self._resources.database.transaction() as c:
            if not await sign_ins.mark_done(c, row.id):
                raise _Deleted
            return await grants.save(c, row.owner, row.server, uuid.uuid4().hex, sealed, tokens.scopes, tokens.lives)

    async def _revoke_replaced(self, replaced: Grant | None, authority: AuthorizationServer) -> None:
        """Revokes the replaced tokens if the new ones cannot end with them. Keycloak and Google end all tokens of a
        user and client when one of them is revoked."""
        opened = None if replaced is None else _opened_grant(self._seal, replaced)
        if opened is not None and (opened[0].issuer, opened[0].client_id) != (authority.issuer, authority.client_id):
            await _revoke(*opened)

    async def _answer(self, row: SignInRow, sign_in: SignIn, answer: Mapping[str, bool]) -> Turn | None:
        """Answers the question that shows the link, if it is still open. Returns the turn that may run now."""
        async with self._resources.database.connection() as c:
            question = await sign_ins.question_with(c, row.session_id, sign_in.link)
        if question is None:
            return None
        with suppress(AlreadyCompleted, OperationGone, OperationNotFound):
            done = await complete_operation(self._resources, question.id, Outcome(True, dict(answer)), by_user=True)
            return done.next_turn
        return None

    def _opened(self, row: SignInRow) -> SignIn | None:
        try:
            return SignIn.from_json(self._seal.open(row.sealed, place_of_sign_in(row.id)))
        except Unreadable:
            return None

    def _go(self, row: SignInRow, browser: str) -> str:
        """Returns what leads on from the first page in this browser. No other browser's page has it."""
        return self._seal.tag(f"go\n{row.id}\n{browser}")


class _Denied(Exception):
    """The user has denied the access."""


class _Deleted(Exception):
    """There is nobody any longer for whom tokens could be stored."""


def _cookie_of(row: SignInRow) -> str:
    return f"copilot_sign_in_{row.id[:16]}"


def _browser_of(row: SignInRow, cookies: Cookies) -> str:
    """Returns the value of the browser's cookie for this link, or an empty text."""
    found = cookies(_cookie_of(row)) or ""
    return found if _BROWSER.fullmatch(found) else ""


def _authorization_url(sign_in: SignIn, redirect_uri: str, state: str, verifier: str) -> str:
    authority = sign_in.authority
    challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")
    asked = {
        "response_type": "code",
        "client_id": authority.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "resource": authority.resource,
    }
    if sign_in.scopes:
        asked["scope"] = sign_in.scopes
    if "offline_access" in sign_in.scopes.split():
        asked["prompt"] = "consent"  # OpenID Connect Core 1.0, section 11
    parts = urlsplit(authority.authorization_endpoint)
    query = urlencode([*((k, v) for k, v in parse_qsl(parts.query) if k not in asked), *asked.items()])
    return urlunsplit(parts._replace(query=query, fragment=""))


async def disconnect(resources: Resources, seal: Seal | None, owner: str, server: str) -> bool:
    """Deletes the tokens of a user for a server, and revokes them there if that works.

    Returns False if there were none. Raises Unavailable.
    """
    async with resources.database.connection() as c:
        grant = await grants.delete(c, owner, server)
    if grant is None:
        return False
    await revoke_grants(seal, [grant])
    return True


async def revoke_grants(seal: Seal | None, deleted: Sequence[Grant]) -> None:
    """Revokes the tokens of these grants at their servers, where that works within REVOKED_WITHIN."""
    opened = [] if seal is None else [_opened_grant(seal, grant) for grant in deleted]
    with suppress(TimeoutError):
        async with asyncio.timeout(REVOKED_WITHIN):
            await asyncio.gather(*(_revoke(*one) for one in opened if one is not None))


def _opened_grant(seal: Seal, grant: Grant) -> tuple[AuthorizationServer, OAuthTokens] | None:
    """Returns None if the grant's key is gone."""
    try:
        return grant_from_json(seal.open(grant.sealed, place_of_grant(grant.owner, grant.server)))
    except Unreadable:
        return None


async def _revoke(authority: AuthorizationServer, tokens: OAuthTokens) -> None:
    from backend.chat.oauth import token_endpoint  # slow, see above

    await token_endpoint.revoke(authority, tokens)

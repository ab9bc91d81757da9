"""The users' tokens for one tool server. One process of all renews a token at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass

from backend.chat.oauth import token_endpoint
from backend.chat.oauth.outside import LIMIT
from backend.chat.oauth.sealing import Seal, Unreadable
from backend.chat.oauth.values import (
    AuthorizationServer,
    GrantRefused,
    NotReached,
    OAuthTokens,
    grant_from_json,
    grant_json,
    place_of_grant,
)
from backend.chat.store.tool_servers import grants
from backend.chat.store.tool_servers.grants import LEASE, Grant
from backend.errors import Unavailable
from backend.postgres import Database

LOOK_EVERY = 0.2
"""Seconds between two checks whether another process has renewed a token."""
STORE_TRIES, STORE_PAUSE = 30, 0.5
"""Tries to store renewed tokens while Postgres is unavailable, and seconds between two. They exist nowhere else."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnsealedGrant:
    """A grant and what is sealed in it."""

    grant: Grant
    authority: AuthorizationServer
    tokens: OAuthTokens


class UserTokens:
    """The tokens for the server `name` at `url`. Tokens that were given for another URL are not used."""

    def __init__(self, name: str, url: str, database: Database, seal: Seal) -> None:
        self._name = name
        self._url = url
        self._database = database
        self._seal = seal
        self._renewing: set[asyncio.Task[UnsealedGrant | None]] = set()

    async def find(self, owner: str) -> UnsealedGrant | None:
        """Returns the user's grant, or None if the user is not signed in. Raises Unavailable."""
        async with self._database.connection() as c:
            grant = await grants.find(c, owner, self._name)
        if grant is None:
            return None
        try:
            authority, tokens = grant_from_json(self._seal.open(grant.sealed, place_of_grant(owner, self._name)))
        except Unreadable:
            logger.warning("tokens of a user cannot be decrypted", extra={"server": self._name})
            return None
        return UnsealedGrant(grant, authority, tokens) if authority.server_url == self._url else None

    async def valid(self, owner: str, grant_id: str, failed: str | None = None) -> str | None:
        """Returns an access token of this grant, renewed if it has expired or is the one that `failed`.

        Returns None if the user must sign in (again). Raises NotReached if it cannot be renewed now, and Unavailable.
        """
        held = await self.find(owner)
        if held is None or held.grant.id != grant_id:
            return None
        if held.tokens.access != failed and not (held.grant.has_expired and held.tokens.refresh):
            return held.tokens.access  # what cannot be renewed is good for as long as the server takes it
        try:
            renewed = await self._renewed(held)
        except NotReached:
            if failed is None:  # the token may still be valid for some seconds; the server decides
                return held.tokens.access
            raise
        return None if renewed is None or renewed.grant.id != grant_id else renewed.tokens.access

    async def _renewed(self, held: UnsealedGrant) -> UnsealedGrant | None:
        """Returns the grant with newer tokens, whichever process has renewed them."""
        until = time.monotonic() + LEASE + LIMIT
        while time.monotonic() < until:
            async with self._database.connection() as c:
                is_ours = await grants.lease(c, held.grant)
            if is_ours:
                job = asyncio.create_task(self._renew(held))  # goes on if the call is cancelled: old tokens may be void
                self._renewing.add(job)
                job.add_done_callback(self._renewing.discard)
                return await asyncio.shield(job)
            seen = await self.find(held.grant.owner)
            if seen is None or seen.grant.version != held.grant.version:
                return seen
            await asyncio.sleep(LOOK_EVERY)
        raise NotReached("it is being asked by another process")

    async def _renew(self, held: UnsealedGrant) -> UnsealedGrant | None:
        if not held.tokens.refresh:
            await self._forget(held, "no refresh token")
            return None
        try:
            tokens = await token_endpoint.refresh(held.authority, held.tokens)
        except GrantRefused as refused:
            if str(refused) == token_endpoint.UNNAMED:  # the user may sign in again, or the next call may go well
                await self._release(held)
            else:
                await self._forget(held, str(refused))
            return None
        except BaseException:
            with suppress(Unavailable):
                await self._release(held)
            raise
        await self._store(held, tokens)
        return await self.find(held.grant.owner)

    async def _release(self, held: UnsealedGrant) -> None:
        async with self._database.connection() as c:
            await grants.release(c, held.grant)

    async def _forget(self, held: UnsealedGrant, why: str) -> None:
        logger.info("a user must sign in again at an MCP server", extra={"server": self._name, "error": why})
        async with self._database.connection() as c:
            await grants.remove_version(c, held.grant)

    async def _store(self, held: UnsealedGrant, tokens: OAuthTokens) -> None:
        """Stores renewed tokens. If the user has signed out meanwhile, they are revoked."""
        place = place_of_grant(held.grant.owner, self._name)
        sealed = self._seal.seal(grant_json(held.authority, tokens), place)
        for left in reversed(range(STORE_TRIES)):
            try:
                async with self._database.connection() as c:
                    is_stored = await grants.renew(c, held.grant, sealed, tokens.scopes, tokens.lives)
            except Unavailable:
                if not left:
                    raise
                await asyncio.sleep(STORE_PAUSE)
            else:
                if not is_stored:
                    await token_endpoint.revoke(held.authority, tokens)
                return

    async def end(self) -> None:
        """Waits until no token is being renewed: what the server has given would be lost."""
        if self._renewing:
            await asyncio.wait(self._renewing, timeout=LIMIT)

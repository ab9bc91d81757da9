"""The registrations of this service at authorization servers, encrypted."""

from __future__ import annotations

from backend.postgres import Connection

LEAST_LIFE = 600.0
"""Seconds for which a registration is used, even if somebody does not come back from its server."""
DAYS = 90
"""Days after which this service registers again. Tokens stay with the client that they were given to."""
_FIND = "SELECT sealed FROM tool_server_clients WHERE issuer = $1 AND redirect_uri = $2"
_SAVE = """
INSERT INTO tool_server_clients (issuer, redirect_uri, sealed) VALUES ($1, $2, $3)
ON CONFLICT (issuer, redirect_uri) DO UPDATE SET sealed = excluded.sealed, created_at = now()"""
_FORGET_OLD = f"""
DELETE FROM tool_server_clients
WHERE issuer = $1 AND redirect_uri = $2 AND created_at < now() - make_interval(secs => {LEAST_LIFE})"""
_PRUNE = f"DELETE FROM tool_server_clients WHERE created_at < now() - make_interval(days => {DAYS})"
_FORGET = "DELETE FROM tool_server_clients WHERE issuer = $1 AND redirect_uri = $2"


async def find(c: Connection, issuer: str, redirect_uri: str) -> bytes | None:
    sealed: bytes | None = await c.fetchval(_FIND, issuer, redirect_uri)
    return sealed


async def save(c: Connection, issuer: str, redirect_uri: str, sealed: bytes) -> None:
    await c.execute(_SAVE, issuer, redirect_uri, sealed)


async def forget(c: Connection, issuer: str, redirect_uri: str) -> None:
    """Removes a registration that its server does not know any longer."""
    await c.execute(_FORGET, issuer, redirect_uri)


async def forget_old(c: Connection, issuer: str, redirect_uri: str) -> None:
    """Removes a registration, unless it is newer than LEAST_LIFE."""
    await c.execute(_FORGET_OLD, issuer, redirect_uri)


async def prune(c: Connection) -> None:
    """Removes registrations that are older than DAYS: servers may name ever new issuers."""
    await c.execute(_PRUNE)

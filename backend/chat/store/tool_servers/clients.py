"""This service as a client that authorization servers have registered, encrypted."""

from __future__ import annotations

from backend.postgres import Connection

_FIND = "SELECT sealed FROM tool_server_clients WHERE issuer = $1 AND redirect_uri = $2"
_SAVE = """
INSERT INTO tool_server_clients (issuer, redirect_uri, sealed) VALUES ($1, $2, $3)
ON CONFLICT (issuer, redirect_uri) DO UPDATE SET sealed = excluded.sealed, created_at = now()"""
_FORGET = "DELETE FROM tool_server_clients WHERE issuer = $1 AND redirect_uri = $2"


async def find(c: Connection, issuer: str, redirect_uri: str) -> bytes | None:
    sealed: bytes | None = await c.fetchval(_FIND, issuer, redirect_uri)
    return sealed


async def save(c: Connection, issuer: str, redirect_uri: str, sealed: bytes) -> None:
    await c.execute(_SAVE, issuer, redirect_uri, sealed)


async def forget(c: Connection, issuer: str, redirect_uri: str) -> None:
    """Removes a registration that its server does not know any longer."""
    await c.execute(_FORGET, issuer, redirect_uri)

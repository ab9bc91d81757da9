"""The tokens of users for tool servers, encrypted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backend.ids import UserId
from backend.postgres import Connection, Row

_COLUMNS = "owner, server, id, version, sealed, scopes, expires_at, created_at"
LEASE = 20.0
"""Seconds for which one process renews a grant: longer than its request may take."""
NEARLY = 30.0
"""Seconds before its end at which an access token counts as expired."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A row. `has_expired`: the access token has expired, or nearly."""

    owner: str
    server: str
    id: str
    version: int
    sealed: bytes
    scopes: str
    expires_at: datetime | None
    created_at: datetime
    has_expired: bool


def _parse(row: Row) -> Grant:
    return Grant(**row)


_SELECT = f"""
SELECT {_COLUMNS}, coalesce(expires_at < now() + make_interval(secs => {NEARLY}), false) AS has_expired
FROM tool_server_grants"""
_FIND = f"{_SELECT} WHERE owner = $1 AND server = $2"
_LIST = f"{_SELECT} WHERE owner = $1 ORDER BY server"
_SAVE = """
INSERT INTO tool_server_grants (owner, server, id, sealed, scopes, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
ON CONFLICT (owner, server) DO UPDATE SET id = excluded.id, sealed = excluded.sealed, scopes = excluded.scopes,
  expires_at = excluded.expires_at, version = tool_server_grants.version + 1, leased_until = NULL, created_at = now()"""
_LEASE = f"""
UPDATE tool_server_grants SET leased_until = now() + make_interval(secs => {LEASE})
WHERE owner = $1 AND server = $2 AND version = $3 AND (leased_until IS NULL OR leased_until < now()) RETURNING true"""
_RELEASE = "UPDATE tool_server_grants SET leased_until = NULL WHERE owner = $1 AND server = $2 AND version = $3"
_RENEW = """
UPDATE tool_server_grants SET sealed = $4, scopes = $5, expires_at = now() + make_interval(secs => $6),
  version = version + 1, leased_until = NULL
WHERE owner = $1 AND server = $2 AND version = $3 RETURNING true"""
_DELETE = f"""
DELETE FROM tool_server_grants WHERE owner = $1 AND server = $2
RETURNING {_COLUMNS}, false AS has_expired"""
_DELETE_VERSION = "DELETE FROM tool_server_grants WHERE owner = $1 AND server = $2 AND version = $3"
_FORGET = f"""
DELETE FROM tool_server_grants WHERE owner = 'user:' || $1
RETURNING {_COLUMNS}, false AS has_expired"""


async def find(c: Connection, owner: str, server: str) -> Grant | None:
    row = await c.fetchrow(_FIND, owner, server)
    return None if row is None else _parse(row)


async def of_owner(c: Connection, owner: str) -> list[Grant]:
    return [_parse(row) for row in await c.fetch(_LIST, owner)]


async def save(
    c: Connection, owner: str, server: str, id: str, sealed: bytes, scopes: str, lives: int | None
) -> Grant | None:
    """Stores the grant of a sign-in. Returns the one that it replaces, if there is one. Requires a transaction."""
    replaced = await c.fetchrow(f"{_FIND} FOR UPDATE", owner, server)
    await c.execute(_SAVE, owner, server, id, sealed, scopes, lives)
    return None if replaced is None else _parse(replaced)


async def lease(c: Connection, grant: Grant) -> bool:
    """Claims the renewal of this version for LEASE seconds. Returns False if another process has it, or had it."""
    return bool(await c.fetchval(_LEASE, grant.owner, grant.server, grant.version))


async def release(c: Connection, grant: Grant) -> None:
    """Lets others renew this version."""
    await c.execute(_RELEASE, grant.owner, grant.server, grant.version)


async def renew(c: Connection, grant: Grant, sealed: bytes, scopes: str, lives: int | None) -> bool:
    """Stores new tokens in place of this version's. Returns False if it is no longer there."""
    return bool(await c.fetchval(_RENEW, grant.owner, grant.server, grant.version, sealed, scopes, lives))


async def remove_version(c: Connection, grant: Grant) -> None:
    """Removes a grant that its server refuses to renew, unless there is a newer version."""
    await c.execute(_DELETE_VERSION, grant.owner, grant.server, grant.version)


async def delete(c: Connection, owner: str, server: str) -> Grant | None:
    """Deletes a grant and returns it. None if there was none."""
    row = await c.fetchrow(_DELETE, owner, server)
    return None if row is None else _parse(row)


async def forget_user(c: Connection, user_id: UserId) -> list[Grant]:
    """Deletes the user's grants and returns them."""
    return [_parse(row) for row in await c.fetch(_FORGET, user_id)]

"""The bodies of responses about a user's connections to tool servers."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from backend.api.schema_base import Reply
from backend.chat.store.tool_servers.grants import Grant


class ConnectionOut(Reply):
    """A tool server at which the user is signed in."""

    server: str
    signed_in_at: datetime
    scopes: list[str]
    expires_at: datetime | None = Field(description="When the access token ends; it is then renewed. null: not told.")

    @classmethod
    def of(cls, grant: Grant) -> Self:
        return cls(
            server=grant.server,
            signed_in_at=grant.created_at,
            scopes=grant.scopes.split(),
            expires_at=grant.expires_at,
        )


class ConnectionList(Reply):
    connections: list[ConnectionOut]

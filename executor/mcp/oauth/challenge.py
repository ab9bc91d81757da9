"""The challenge of a tool server: a request needs a sign-in, or more scopes than the token has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
from mcp.client.auth.utils import extract_field_from_www_auth

from backend.chat.models import Json

MAX_WORDS = 2_048


@dataclass(frozen=True, slots=True)
class Challenge:
    """`metadata` is the URL of the server's own description (RFC 9728), `scope` what it asks for; empty if not told.

    `more`: the token is good, but lacks the scopes (`insufficient_scope`).
    """

    metadata: str = ""
    scope: str = ""
    more: bool = False

    def as_json(self) -> Json:
        return {"metadata": self.metadata, "scope": self.scope, "more": self.more}

    @classmethod
    def from_json(cls, document: Json) -> Challenge:
        return cls(**document) if isinstance(document, dict) else cls()


class SignInNeeded(Exception):
    """The user must sign in before the request can run. It did not run."""

    def __init__(self, challenge: Challenge) -> None:
        super().__init__("a sign-in is needed")
        self.challenge = challenge


def challenge_of(status: int, headers: Mapping[str, str]) -> Challenge | None:
    """Returns the challenge of a refusal, or None if the refusal asks for no sign-in."""
    told = httpx2.Response(status, headers={"www-authenticate": headers.get("www-authenticate", "")[:MAX_WORDS]})
    more = status == 403 and extract_field_from_www_auth(told, "error") == "insufficient_scope"
    if status != 401 and not more:
        return None
    metadata, scope = (extract_field_from_www_auth(told, name) or "" for name in ("resource_metadata", "scope"))
    return Challenge(metadata, scope, more)

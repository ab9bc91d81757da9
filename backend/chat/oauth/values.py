"""The values of a sign-in at a tool server, as they are stored (encrypted, as JSON)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from backend.chat.models import Json

PATH = "/api/chat/mcp"
CALLBACK, SIGN_IN, CLIENT_DOCUMENT = f"{PATH}/callback", f"{PATH}/sign-in", f"{PATH}/client.json"
CLIENT_NAME = "CoPilot"


class NotReached(Exception):
    """A request to an authorization server got no answer that can be used. The message says why, without a URL."""


class GrantRefused(Exception):
    """The authorization server refuses the code or the refresh token. The message is its code for the reason."""


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """An authorization server as the client of a tool server needs it, and this service as its client.

    `server_url` is the tool server's, `resource` its identifier (RFC 8707). `names_issuer`: the authorization server
    names itself in its answers (RFC 9207). `auth_method` is that of the token endpoint. `private`: its addresses may be
    those of private networks. `revocation_endpoint` and `client_secret` are empty if there are none.
    """

    server_url: str
    resource: str
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    client_id: str
    client_secret: str = ""
    auth_method: str = "none"
    revocation_endpoint: str = ""
    names_issuer: bool = False
    private: bool = False


@dataclass(frozen=True, slots=True)
class OAuthTokens:
    """The tokens of a grant. `lives` is the access token's life in seconds when it was made; None: not told."""

    access: str
    refresh: str = ""
    scopes: str = ""
    lives: int | None = None

    def renewed_by(self, newer: OAuthTokens) -> OAuthTokens:
        """Returns the newer tokens; what a renewal does not tell stays as it was (RFC 6749, 5.1 and 6)."""
        return replace(newer, refresh=newer.refresh or self.refresh, scopes=newer.scopes or self.scopes)


@dataclass(frozen=True, slots=True)
class SignIn:
    """What the flow behind a link needs.

    `verifier` is that of PKCE, and `browser` the hash of the cookie of the browser; empty until the user leaves.
    """

    authority: AuthorizationServer
    link: str
    scopes: str = ""
    verifier: str = ""
    browser: str = ""

    def as_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> Self:
        return cls(**{**document, "authority": AuthorizationServer(**document["authority"])})


def grant_json(authority: AuthorizationServer, tokens: OAuthTokens) -> Json:
    return {"authority": asdict(authority), "tokens": asdict(tokens)}


def grant_from_json(document: Any) -> tuple[AuthorizationServer, OAuthTokens]:
    return AuthorizationServer(**document["authority"]), OAuthTokens(**document["tokens"])


def place_of_grant(owner: str, server: str) -> str:
    """Returns the place to which the tokens of a grant are bound by their encryption."""
    return f"grant\n{owner}\n{server}"


def place_of_sign_in(id: str) -> str:
    return f"sign-in\n{id}"


def place_of_client(issuer: str, redirect_uri: str) -> str:
    return f"client\n{issuer}\n{redirect_uri}"


def hash_of(secret: str) -> str:
    """Returns the hash under which a ticket or a state is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()

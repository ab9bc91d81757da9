"""Requests to an authorization server for tokens and for their revocation (RFC 6749, 7009, 7636, 8707)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from backend.chat.oauth.outside import HttpAnswer, OutsideClient, open_outside_client
from backend.chat.oauth.values import AuthorizationServer, GrantRefused, NotReached, OAuthTokens

MAX_TOKEN = 16_384
"""Characters of a token."""
LONGEST_LIFE = 10 * 366 * 86_400
AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")
UNNAMED = "refused"
"""The message of a refusal without a reason, which may come from a gateway before the server."""
_FOR_NOW = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_TOKEN = re.compile(r"[!-~]+")
_SCOPES = re.compile(r"[!-~]+( [!-~]+)*")


async def exchange(authority: AuthorizationServer, code: str, verifier: str, redirect_uri: str) -> OAuthTokens:
    """Exchanges a code for tokens. Raises GrantRefused and NotReached."""
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
    return await _asked(authority, fields)


async def refresh(authority: AuthorizationServer, tokens: OAuthTokens) -> OAuthTokens:
    """Returns new tokens. Raises GrantRefused and NotReached."""
    newer = await _asked(authority, {"grant_type": "refresh_token", "refresh_token": tokens.refresh})
    return tokens.renewed_by(newer)


async def revoke(authority: AuthorizationServer, tokens: OAuthTokens) -> bool:
    """Revokes the tokens if the server has an endpoint for it. Returns True if it has taken the request."""
    if not authority.revocation_endpoint:
        return False
    given = (
        {"token": tokens.refresh, "token_type_hint": "refresh_token"} if tokens.refresh else {"token": tokens.access}
    )
    try:
        async with open_outside_client(private=authority.private) as client:
            answer = await _post(client, authority, authority.revocation_endpoint, given)
            if answer.status == 400:  # servers on the Python SDK up to 2.3 want this member, even an empty one
                answer = await _post(client, authority, authority.revocation_endpoint, {**given, "client_secret": ""})
    except NotReached:
        return False
    return answer.status == 200


async def _asked(authority: AuthorizationServer, fields: Mapping[str, str]) -> OAuthTokens:
    async with open_outside_client(private=authority.private) as client:
        answer = await _post(client, authority, authority.token_endpoint, {**fields, "resource": authority.resource})
    document = _object_in(answer.body)
    code, ok = document.get("error"), answer.status in (200, 201)
    if isinstance(code, str) and _TOKEN.fullmatch(code) and (ok or answer.status in (400, 401, 403)):
        if code in _FOR_NOW:
            raise NotReached(f"it answers {code}")
        raise GrantRefused(code[:100])  # some servers do so with status 200
    if answer.status in (400, 401, 403):
        raise GrantRefused(UNNAMED)
    if not ok:
        raise NotReached(f"it answers with HTTP status {answer.status}")
    return _tokens_in(document)


async def _post(
    client: OutsideClient, authority: AuthorizationServer, url: str, fields: Mapping[str, str]
) -> HttpAnswer:
    """Posts a form in the name of this client."""
    form, headers = {**fields, "client_id": authority.client_id}, {}
    if authority.auth_method == "client_secret_basic" and authority.client_secret:
        login = f"{quote(authority.client_id, safe='')}:{quote(authority.client_secret, safe='')}"
        headers["authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    elif authority.auth_method == "client_secret_post" and authority.client_secret:
        form["client_secret"] = authority.client_secret
    return await client.post(url, headers=headers, data=form)


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _tokens_in(document: Mapping[str, Any]) -> OAuthTokens:
    access, refresh, scopes = (document.get(name) for name in ("access_token", "refresh_token", "scope"))
    kind = document.get("token_type", "Bearer")
    if not _is_token(access) or not isinstance(kind, str) or kind.lower() != "bearer":
        raise NotReached("its answer has no bearer token")
    assert isinstance(access, str), "checked above"
    lives = document.get("expires_in")
    try:
        seconds = min(int(lives), LONGEST_LIFE) if lives is not None and int(lives) > 0 else None
    except (ValueError, TypeError, OverflowError):
        seconds = None
    return OAuthTokens(
        access, str(refresh) if _is_token(refresh) else "", str(scopes) if _are_scopes(scopes) else "", seconds
    )


def _are_scopes(given: Any) -> bool:
    return isinstance(given, str) and len(given) <= MAX_TOKEN and _SCOPES.fullmatch(given) is not None


def _is_token(given: Any) -> bool:
    return isinstance(given, str) and len(given) <= MAX_TOKEN and _TOKEN.fullmatch(given) is not None

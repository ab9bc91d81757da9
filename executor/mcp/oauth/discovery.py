"""Finds the authorization server of a tool server, and makes this service its client (MCP 2025-11-25, authorization).

The order is that of the specification: the tool server's metadata (RFC 9728), that of its authorization server (RFC
8414, OpenID Connect Discovery), then the client of the servers file, a client-id metadata document, or a registration
(RFC 7591). The URLs come from others, so `open_outside_client` checks where they lead.
"""

from __future__ import annotations

import asyncio
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx2
from mcp.client.auth import OAuthFlowError, OAuthRegistrationError
from mcp.client.auth.oauth2 import check_registration_usable
from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    handle_auth_metadata_response,
    handle_protected_resource_response,
    handle_registration_response,
    is_valid_client_metadata_url,
    issuers_match,
    union_scopes,
    validate_metadata_issuer,
)
from mcp.shared.auth import OAuthMetadata, ProtectedResourceMetadata
from mcp.shared.auth_utils import check_resource_allowed, resource_url_from_server_url

from backend.chat.oauth.outside import HttpAnswer, OutsideClient, open_outside_client
from backend.chat.oauth.sealing import Seal, Unreadable
from backend.chat.oauth.token_endpoint import AUTH_METHODS
from backend.chat.oauth.values import (
    CALLBACK,
    CLIENT_DOCUMENT,
    CLIENT_NAME,
    AuthorizationServer,
    NotReached,
    place_of_client,
)
from backend.chat.store.tool_servers import clients
from backend.outside_addresses import OutsideAddresses
from backend.postgres import Database
from executor.mcp.oauth.challenge import Challenge, challenge_of
from executor.mcp.server_entry import HttpServer, OAuth

_PING = {"jsonrpc": "2.0", "id": 0, "method": "ping"}
WHOLE_LIMIT = 40.0
"""Seconds for finding an authority: several requests."""
MAX_SCOPES = 4_096
_SCOPE = re.compile(r"[!#-\[\]-~]+")
_LOCAL_NAME = re.compile(r"[^.]+|.*\.(local|localhost|internal|lan|home\.arpa)")


class SignInImpossible(Exception):
    """Nobody can sign in at this server. The message says why, without secrets."""


def is_private(server: HttpServer) -> bool:
    """Returns True if the file says that the server is in a private network, or its host does.

    Names are not resolved for this: whoever owns a public name could lead it into the private network.
    """
    host = (urlsplit(server.url.get_secret_value()).hostname or "").rstrip(".")
    if server.auth is not None and server.auth.private:
        return True
    try:
        ip_address(host)
    except ValueError:
        return _LOCAL_NAME.fullmatch(host) is not None
    return not OutsideAddresses("").permit(host)


def check_issuer(server: HttpServer, issuer: str) -> None:
    """Raises SignInImpossible if the server names an authorization server that its entry does not allow."""
    auth = server.auth
    assert auth is not None, "only such servers are signed in at"
    if auth.issuer is not None:
        if not issuers_match(issuer, auth.issuer):
            raise SignInImpossible("it names another sign-in server than auth.issuer does")
    elif (
        auth.client_secret is not None and urlsplit(issuer).hostname != urlsplit(server.url.get_secret_value()).hostname
    ):
        raise SignInImpossible("set auth.issuer: auth.client_secret is sent to no other host without it")


class Discovery:
    """Finds the authority of one server. `base` is the URL of this service, as browsers reach it."""

    def __init__(self, server: HttpServer, database: Database, seal: Seal, base: str) -> None:
        assert server.auth is not None, "only such servers are signed in at"
        self._server, self._auth = server, server.auth
        self._url = server.url.get_secret_value()
        self._database = database
        self._seal = seal
        self._base = base.rstrip("/")
        self._private = is_private(server)

    async def find(
        self, challenge: Challenge | None, granted: str = "", *, in_vain: bool = False
    ) -> tuple[AuthorizationServer, str]:
        """Returns the authorization server and the scopes to ask for. Without a challenge, asks the server for one.

        `granted` are the scopes that the user has given already. `in_vain`: the user went there and did not come
        back. The server may have forgotten this client, an error that only the user sees. Raises SignInImpossible
        and Unavailable.
        """
        try:
            async with asyncio.timeout(WHOLE_LIMIT), open_outside_client(private=self._private) as client:
                return await self._find(client, challenge or await self._challenge(client), granted, in_vain)
        except TimeoutError:
            raise SignInImpossible("its sign-in server is too slow") from None
        except NotReached as error:
            raise SignInImpossible(f"its sign-in server: {error}") from None
        except (OAuthFlowError, OAuthRegistrationError) as error:
            raise SignInImpossible(_words_of(error)) from None

    async def _find(
        self, client: OutsideClient, challenge: Challenge, granted: str, in_vain: bool
    ) -> tuple[AuthorizationServer, str]:
        described = await self._resource(client, challenge)
        metadata, issuer = await self._metadata(client, described)
        check_issuer(self._server, issuer)
        if "S256" not in (metadata.code_challenge_methods_supported or ()):
            raise SignInImpossible("its sign-in server does not offer PKCE with S256, which MCP requires")
        resource = resource_url_from_server_url(self._url) if described is None else str(described.resource)
        id, secret, method = await self._client(client, metadata, issuer, in_vain)
        authority = AuthorizationServer(
            server_url=self._url,
            resource=resource,
            issuer=issuer,
            authorization_endpoint=self._checked(str(metadata.authorization_endpoint)),
            token_endpoint=self._checked(str(metadata.token_endpoint)),
            client_id=id,
            client_secret=secret,
            auth_method=method,
            revocation_endpoint=str(metadata.revocation_endpoint or ""),
            names_issuer=bool(metadata.authorization_response_iss_parameter_supported),
            private=self._private,
        )
        return authority, scopes_to_ask(self._auth, challenge, described, metadata, granted)

    async def _challenge(self, client: OutsideClient) -> Challenge:
        """Asks the server for something, without a token, to be told where it describes its sign-in."""
        headers = {"accept": "application/json, text/event-stream"}
        try:
            answer = await client.post(self._url, headers=headers, json=_PING)
        except NotReached:
            return Challenge()
        return challenge_of(answer.status, answer.headers) or Challenge()

    async def _resource(self, client: OutsideClient, challenge: Challenge) -> ProtectedResourceMetadata | None:
        for url in build_protected_resource_metadata_discovery_urls(challenge.metadata or None, self._url):
            answer = await client.get(url)
            if answer.status >= 500:
                raise SignInImpossible(f"it does not describe its sign-in now (HTTP status {answer.status})")
            described = await handle_protected_resource_response(_response(answer))
            if described is None:
                continue
            wanted = resource_url_from_server_url(self._url)
            if not check_resource_allowed(requested_resource=wanted, configured_resource=str(described.resource)):
                raise SignInImpossible("it describes the sign-in of another server")
            return described
        return None

    async def _metadata(
        self, client: OutsideClient, described: ProtectedResourceMetadata | None
    ) -> tuple[OAuthMetadata, str]:
        """Returns the metadata of the authorization server, and its issuer, which must be that of the request."""
        parts = urlsplit(self._url)
        named = None if described is None else str(described.authorization_servers[0])
        expected = named or f"{parts.scheme}://{parts.netloc}"
        for url in build_oauth_authorization_server_metadata_discovery_urls(named, self._url):
            answer = await client.get(url)
            may_go_on, metadata = await handle_auth_metadata_response(_response(answer))
            if metadata is not None:
                issuer = str(metadata.issuer)
                if named is None and issuers_match(issuer, expected):
                    expected = issuer
                validate_metadata_issuer(metadata, expected)
                return metadata, issuer
            if not may_go_on:
                break
        raise SignInImpossible("its sign-in server does not describe itself")

    def _checked(self, url: str) -> str:
        if urlsplit(url).scheme != "https" and not self._private:
            raise SignInImpossible("its sign-in server does not use https")
        return url

    async def _client(
        self, client: OutsideClient, metadata: OAuthMetadata, issuer: str, in_vain: bool
    ) -> tuple[str, str, str]:
        """Returns the id, the secret and the authentication method of this client. Raises SignInImpossible."""
        offered = metadata.token_endpoint_auth_methods_supported or ["client_secret_basic"]
        if self._auth.client_id is not None:
            secret = self._auth.client_secret.get_secret_value() if self._auth.client_secret is not None else ""
            usable = [method for method in AUTH_METHODS[:2] if method in offered] or [AUTH_METHODS[0]]
            return self._auth.client_id, secret, usable[0] if secret else "none"
        document = f"{self._base}{CLIENT_DOCUMENT}"
        if metadata.client_id_metadata_document_supported and is_valid_client_metadata_url(document):
            return document, "", "none"
        if metadata.registration_endpoint is None:
            raise SignInImpossible(
                "its sign-in server registers no clients by itself: register this service there, and set auth.client_id"
            )
        if in_vain:
            async with self._database.connection() as c:
                await clients.forget_old(c, issuer, f"{self._base}{CALLBACK}")
        return await self._registered(client, str(metadata.registration_endpoint), offered, issuer)

    async def _registered(
        self, client: OutsideClient, endpoint: str, offered: list[str], issuer: str
    ) -> tuple[str, str, str]:
        """Returns this client as the server has registered it, now or earlier."""
        redirect_uri = f"{self._base}{CALLBACK}"
        place = place_of_client(issuer, redirect_uri)
        async with self._database.connection() as c:
            sealed = await clients.find(c, issuer, redirect_uri)
        if sealed is not None:
            try:
                id, secret, method = self._seal.open(sealed, place)
            except Unreadable:
                pass
            else:
                return id, secret, method
        wanted = {
            "client_name": CLIENT_NAME,
            "client_uri": self._base,
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": next((method for method in AUTH_METHODS if method in offered), "none"),
            "application_type": "web" if self._base.startswith("https:") else "native",
        }
        answer = await client.post(endpoint, json=wanted)
        made = await handle_registration_response(_response(answer))
        check_registration_usable(made)
        found = made.client_id, made.client_secret or "", made.token_endpoint_auth_method or "none"
        if not made.client_secret_expires_at:  # one that expires is registered again each time
            async with self._database.connection() as c:
                await clients.save(c, issuer, redirect_uri, self._seal.seal(found, place))
        return found


def scopes_to_ask(
    auth: OAuth,
    challenge: Challenge,
    described: ProtectedResourceMetadata | None,
    metadata: OAuthMetadata,
    granted: str,
) -> str:
    """Returns the scopes to ask for: those of the file, else of the challenge, else of the server's description.

    With a challenge for more, those that were granted before stay.
    """
    told = challenge.scope or " ".join((described and described.scopes_supported) or ())
    wanted = " ".join(auth.scopes) or told
    if challenge.more:
        wanted = union_scopes(granted, union_scopes(wanted, challenge.scope)) or ""
    wanted = _clean(wanted)
    if wanted and "offline_access" in (metadata.scopes_supported or ()):
        wanted = union_scopes(wanted, "offline_access") or ""
    return wanted


def _clean(scopes: str) -> str:
    """Returns the scopes that can be asked for in a URL, and stored (RFC 6749, 3.3)."""
    kept: list[str] = []
    for scope in scopes.split():
        if _SCOPE.fullmatch(scope) and sum(map(len, kept)) + len(scope) <= MAX_SCOPES:
            kept.append(scope)
    return " ".join(kept)


def _response(answer: HttpAnswer) -> httpx2.Response:
    return httpx2.Response(answer.status, content=answer.body, request=httpx2.Request("GET", "https://sign-in.invalid"))


def _words_of(error: Exception) -> str:
    if isinstance(error, OAuthRegistrationError):
        return "its sign-in server does not register this service as a client"
    if "issuer mismatch" in str(error):
        return "its sign-in server is not the one that it names (issuer mismatch)"
    return "its sign-in server's answer cannot be used"

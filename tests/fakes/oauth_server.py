"""`python oauth_server.py PORT PORT PORT PORT`: MCP servers on fastmcp 4. At three, users sign in, each with an
authorization server of its own: the first registers clients, the second knows only the one in `CLIENT`, and the third
names another issuer than the one that it is. The fourth tells which headers a call has.

It runs with the interpreter of `tests.servers.mcp_install`, so it imports nothing from here. Tokens, codes, PKCE and
the registration of clients are those of fastmcp 4.1.4 and mcp 2.3.0. Added are what tests need to see and to change,
under `/test`, and a tool that needs another scope (403 with `insufficient_scope`, MCP 2025-11-25, authorization).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from typing import Any

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth.providers import in_memory
from fastmcp.server.auth.providers.in_memory import ClientRegistrationOptions, InMemoryOAuthProvider, RevocationOptions
from fastmcp.server.dependencies import get_access_token, get_http_headers
from mcp.server.auth.provider import AuthorizationParams, construct_redirect_uri
from mcp.shared.auth import OAuthClientInformationFull
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send


class Provider(InMemoryOAuthProvider):
    """Counts what it does, and refuses what a test wants refused."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.counts = {"registered": 0, "refreshed": 0, "revoked": 0, "exchanged": 0}
        self.asked: list[dict[str, Any]] = []
        self.denies = False

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.counts["registered"] += 1
        await super().register_client(client_info)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        self.asked.append({"scopes": params.scopes, "resource": params.resource})
        if self.denies:
            return construct_redirect_uri(str(params.redirect_uri), error="access_denied", state=params.state)
        return await super().authorize(client, params)

    async def exchange_authorization_code(self, *given: Any) -> Any:
        self.counts["exchanged"] += 1
        return await super().exchange_authorization_code(*given)

    async def exchange_refresh_token(self, *given: Any) -> Any:
        self.counts["refreshed"] += 1
        return await super().exchange_refresh_token(*given)

    async def revoke_token(self, token: Any) -> None:
        self.counts["revoked"] += 1
        await super().revoke_token(token)

    def change(self, what: str) -> None:
        match what:
            case "deny":
                self.denies = not self.denies
            case "expire":  # access tokens end, and can be renewed
                for token in self.access_tokens.values():
                    token.expires_at = int(time.time()) - 1
                self._access_to_refresh_map.clear()
            case "brief":  # new tokens end at once, for the client
                in_memory.DEFAULT_ACCESS_TOKEN_EXPIRY_SECONDS = 20
            case "usual":
                in_memory.DEFAULT_ACCESS_TOKEN_EXPIRY_SECONDS = 3600
            case "clients":  # as after a restart without a database
                self.clients.clear()
            case "forget":  # no token is known any longer
                self.access_tokens.clear()
                self.refresh_tokens.clear()


def app_at(port: int, *, registers: bool = True, client: str | None = None, issuer: str | None = None) -> ASGIApp:
    base = f"http://127.0.0.1:{port}"
    provider = Provider(
        base_url=base,
        issuer_url=issuer or base,
        client_registration_options=ClientRegistrationOptions(
            enabled=registers, valid_scopes=["read", "write"], default_scopes=["read", "write"]
        ),
        revocation_options=RevocationOptions(enabled=True),
        required_scopes=["read"],
    )
    if client is not None:
        known = OAuthClientInformationFull.model_validate_json(client)
        provider.clients[known.client_id] = known
    server = FastMCP("signed", auth=provider)

    @server.tool
    async def whoami() -> str:
        """Tells which token the call has."""
        token = get_access_token()
        return "nobody" if token is None else hashlib.sha256(token.token.encode()).hexdigest()[:16]

    @server.tool
    async def write() -> str:
        """Needs the scope `write`."""
        return "written"

    @server.custom_route("/test", methods=["GET"])
    async def seen(request: Request) -> Response:
        return JSONResponse({**provider.counts, "asked": provider.asked, "access": len(provider.access_tokens)})

    @server.custom_route("/test/{what}", methods=["POST"])
    async def change(request: Request) -> Response:
        provider.change(request.path_params["what"])
        return JSONResponse({})

    return NeedsScope(server.http_app(), provider, base)


class NeedsScope:
    """Refuses calls of `write` whose token has not that scope."""

    def __init__(self, app: ASGIApp, provider: Provider, base: str) -> None:
        self.app = app
        self.provider = provider
        metadata = f"{base}/.well-known/oauth-protected-resource/mcp"
        self.challenge = f'Bearer error="insufficient_scope", scope="write", resource_metadata="{metadata}"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith("/mcp"):
            return await self.app(scope, receive, send)
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        given = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        token = self.provider.access_tokens.get(given)
        called = json.loads(body) if body else {}
        if token is not None and "write" not in token.scopes and called.get("params", {}).get("name") == "write":
            refused = Response(status_code=403, headers={"www-authenticate": self.challenge})
            return await refused(scope, receive, send)
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return whole.pop() if whole else await receive()

        return await self.app(scope, again, send)


def plain_app() -> ASGIApp:
    server = FastMCP("plain")

    @server.tool
    async def headers() -> str:
        """Tells the headers that begin with x-."""
        return json.dumps({name: value for name, value in get_http_headers().items() if name.startswith("x-")})

    @server.tool
    async def later() -> str:
        """Does the same."""
        return await headers()

    return server.http_app()


async def main(first: int, second: int, third: int, fourth: int) -> None:
    apps = {
        first: app_at(first),
        second: app_at(second, registers=False, client=os.environ["CLIENT"]),
        third: app_at(third, issuer="http://127.0.0.1:9"),
        fourth: plain_app(),
    }
    serving = (
        uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")).serve()
        for port, app in apps.items()
    )
    await asyncio.gather(*serving)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))

#!/usr/bin/env bash
# mcp 2.3.0 (the Python SDK's OAuth server routes), seen 2026-12-01 on Python 3.11.
#
# Expected: a public client, registered with token_endpoint_auth_method "none", revokes its token with `token` and
# `client_id`, since RFC 7009, section 2.1, asks a client without credentials for no secret.
# Seen: 400 invalid_request, because the form must have a member `client_secret`. An empty one is enough.
#
# Output:
#   registered: none
#   without client_secret: 400
#   with an empty client_secret: 200
#   revoked: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0
cat >"$folder/seen.py" <<'PY'
import asyncio

import httpx2
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from pydantic import AnyHttpUrl
from starlette.applications import Starlette


class Provider:
    def __init__(self):
        self.clients, self.revoked = {}, []

    async def get_client(self, client_id):
        return self.clients.get(client_id)

    async def register_client(self, client):
        self.clients[client.client_id] = client

    async def load_access_token(self, token):
        return AccessToken(token=token, client_id=next(iter(self.clients)), scopes=[])

    async def load_refresh_token(self, client, token):
        return None

    async def revoke_token(self, token):
        self.revoked.append(token)


async def main():
    provider = Provider()
    app = Starlette(
        routes=create_auth_routes(
            provider,
            AnyHttpUrl("http://localhost:9000"),
            client_registration_options=ClientRegistrationOptions(enabled=True),
            revocation_options=RevocationOptions(enabled=True),
        )
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost:9000") as client:
        wanted = {
            "redirect_uris": ["http://localhost/callback"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
        }
        made = (await client.post("/register", json=wanted)).json()
        print("registered:", made["token_endpoint_auth_method"])
        form = {"token": "t", "client_id": made["client_id"]}
        print("without client_secret:", (await client.post("/revoke", data=form)).status_code)
        print("with an empty client_secret:", (await client.post("/revoke", data={**form, "client_secret": ""})).status_code)
        print("revoked:", len(provider.revoked))


asyncio.run(main())
PY
timeout 60 "$folder/venv/bin/python" "$folder/seen.py" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
registered: none
without client_secret: 400
with an empty client_secret: 200
revoked: 1
SEEN

"""Sign-in at tool servers: the two pages of the flow, and the user's connections."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from backend.api.deps import AppState, AUser, ConnectionsUser
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute, OpenRoute
from backend.api.sign_in_page import HEADERS, page_of
from backend.api.state import ApiState
from backend.api.tool_server_schemas import ConnectionList, ConnectionOut
from backend.chat.flows.sign_in import GONE, SignInFlow, SignInVisit, VisitState, disconnect
from backend.chat.oauth.sealing import Seal
from backend.chat.oauth.values import CALLBACK, CLIENT_DOCUMENT, CLIENT_NAME, PATH
from backend.chat.store.tool_servers import grants
from backend.errors import ConnectionNotFound, NotFound

MAX_SERVER, MAX_GIVEN = 128, 4_096
"""Characters of a server's name, and of a parameter of the callback."""
COOKIE_LIVES = 900
pages = APIRouter(prefix="/mcp", route_class=OpenRoute, include_in_schema=False)
router = APIRouter(
    prefix="/mcp/connections", tags=["tool servers"], route_class=CallerRoute, responses=responses(401, 413, 422, 503)
)


@router.get("")
async def list_connections(api: AppState, user_id: AUser) -> ConnectionList:
    """Lists the tool servers at which the user is signed in. Tokens are never shown."""
    async with api.resources.database.connection() as c:
        found = await grants.of_owner(c, f"user:{user_id}")
    return ConnectionList(connections=[ConnectionOut.of(grant) for grant in found])


@router.delete("/{server:path}", status_code=204, responses=responses(404))
async def delete_connection(api: AppState, user_id: ConnectionsUser, server: str) -> None:
    """Signs the user out at a tool server: deletes the tokens, and revokes them there if the server can do that."""
    known = len(server) <= MAX_SERVER and server.isprintable()
    if not known or not await disconnect(api.resources, _seal(api), f"user:{user_id}", server):
        raise ConnectionNotFound


@pages.get("/sign-in")
async def sign_in(api: AppState, request: Request, ticket: str = "", go: str = "") -> Response:
    """The page behind the link in a conversation. With `go` it leads to the authorization server."""
    flow = _flow(api)
    if flow is None or not 0 < len(ticket) <= MAX_GIVEN:
        return page_of(GONE)
    if go:
        answer = await flow.leave(ticket, go[:MAX_GIVEN], request.cookies.get)
        if isinstance(answer, str):
            return RedirectResponse(answer, status_code=302, headers=HEADERS)
        visit = answer
    else:
        visit = await flow.look(ticket, request.cookies.get)
    return _shown(api, visit, ticket)


@pages.get("/callback")
async def callback(api: AppState, request: Request) -> Response:
    """The page to which the authorization server sends the user back."""
    flow = _flow(api)
    given = {name: value[:MAX_GIVEN] for name, value in request.query_params.items()}
    if flow is None or any("\0" in value for value in given.values()):
        return page_of(GONE)
    return _shown(api, await flow.come_back(given, request.cookies.get))


@pages.get("/client.json")
async def client_document(api: AppState) -> Response:
    """Describes this service to authorization servers that read client-id metadata documents."""
    base = api.resources.settings.platform_base_url.rstrip("/")
    document = {
        "client_id": f"{base}{CLIENT_DOCUMENT}",
        "client_name": CLIENT_NAME,
        "client_uri": base,
        "redirect_uris": [f"{base}{CALLBACK}"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }
    if _flow(api) is None:
        raise NotFound
    return JSONResponse(document)


def _shown(api: ApiState, visit: SignInVisit, ticket: str = "") -> Response:
    if visit.next_turn is not None:
        api.jobs.start(api.resources.outbox.publish(visit.next_turn), name="publish")
    response = page_of(visit, f"?ticket={quote(ticket)}&go={visit.go}")  # relative: a proxy may serve this under a path
    if visit.end is VisitState.OPEN and visit.cookie is not None:
        name, value = visit.cookie
        base = urlsplit(api.resources.settings.platform_base_url)
        path, secure = f"{base.path.rstrip('/')}{PATH}", base.scheme == "https"
        response.set_cookie(name, value, max_age=COOKIE_LIVES, path=path, secure=secure, httponly=True, samesite="lax")
    return response


def _seal(api: ApiState) -> Seal | None:
    return Seal.of(api.resources.settings.mcp_token_keys)


def _flow(api: ApiState) -> SignInFlow | None:
    """Returns None if this server has no keys for tokens, so that nobody can sign in."""
    seal = _seal(api)
    return None if seal is None else SignInFlow(api.resources, seal)

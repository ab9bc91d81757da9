"""Share links: a read-only copy of a conversation for everyone who has the link, if the operator allows it."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response

from backend.api import export
from backend.api.conversation_schemas import SharedOut, ShareOut, SharingOut
from backend.api.deps import AppState, AsCaller, ASession
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute, OpenRoute
from backend.api.sharing import shared_messages
from backend.api.state import ApiState, address_of
from backend.chat.models import Caller
from backend.chat.store import sessions
from backend.chat.store.conversations import shares
from backend.errors import Forbidden, ShareNotFound

router = APIRouter(
    prefix="/sessions/{session_id}/share",
    tags=["sessions"],
    route_class=CallerRoute,
    responses=responses(401, 404, 422, 503),
)
reading = APIRouter(tags=["sessions"], route_class=OpenRoute, responses=responses(404, 422, 429, 503))
_TOKEN = re.compile(shares.TOKEN_PATTERN)
_PRIVATE = {"cache-control": "no-store", "x-robots-tag": "noindex, nofollow", "referrer-policy": "no-referrer"}


@router.get("")
async def read_sharing(api: AppState, caller: AsCaller, session_id: ASession) -> SharingOut:
    """Returns the share link of a session, if it has one."""
    async with api.resources.database.connection() as c:
        await sessions.get_session(c, session_id, caller)
        share = await shares.share_of(c, session_id)
    return SharingOut(enabled=_is_enabled(api), share=None if share is None else ShareOut.of(share))


@router.put("", responses=responses(403))
async def share_session(api: AppState, caller: AsCaller, session_id: ASession) -> ShareOut:
    """Makes a link with which everyone can read the conversation as it is now, without later messages.

    If the session has a link, it shows the conversation as it is now. The copy has the texts and sources of the current
    branch, without files, calls of tools, reasoning and metadata. Answers 422 `conversation_too_large` over 2 MiB.
    """
    if not _is_enabled(api):
        raise Forbidden("This server makes no share links (SHARE_LINKS).")
    async with api.resources.database.snapshot() as c:
        session = await sessions.get_session(c, session_id, caller)
        messages = shared_messages(await export.read_conversation(c, session))
    async with api.resources.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        return ShareOut.of(await shares.set_share(c, session_id, session.title, messages))


@router.delete("", status_code=204)
async def withdraw_share(api: AppState, caller: AsCaller, session_id: ASession) -> None:
    """Ends the link of a session for good; a new one has another address. Does nothing if there is none."""
    async with api.resources.database.transaction() as c:
        await sessions.get_session(c, session_id, caller, lock=True)
        await shares.remove_share(c, session_id)


@reading.get("/shared/{share_token}")
async def read_shared(request: Request, api: AppState, response: Response, share_token: str) -> SharedOut:
    """Returns the copy behind a share link. Needs no token; each address may read 120 copies in a minute."""
    api.shared_reads.count(Caller(None, address_of(request)).quota_key)
    if not _is_enabled(api) or _TOKEN.fullmatch(share_token) is None:
        raise ShareNotFound
    async with api.resources.database.connection() as c:
        copy = await shares.read_share(c, share_token)
    response.headers.update(_PRIVATE)
    return SharedOut.model_validate({"title": copy.title, "created_at": copy.created_at, "messages": copy.messages})


def _is_enabled(api: ApiState) -> bool:
    return api.resources.settings.share_links

"""The export of a conversation as a file."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from backend.api import export
from backend.api.deps import AppState, AsCaller, ASession
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.chat.store import instructions, sessions

router = APIRouter(tags=["sessions"], route_class=CallerRoute, responses=responses(401, 404, 422, 503))
_CONTENT = {"text/markdown": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
_FILES: dict[int | str, dict[str, Any]] = {200: {"description": "The conversation as a file.", "content": _CONTENT}}


@router.get("/sessions/{session_id}/export", response_class=Response, responses=_FILES)
async def export_conversation(
    api: AppState,
    caller: AsCaller,
    session_id: ASession,
    format: Annotated[Literal["markdown", "json"], Query(description="Texts for people, or all parts.")] = "markdown",
) -> Response:
    """Returns the whole conversation as one file: the current branch. An answer that is running is cut off.

    JSON has the messages as AI SDK UIMessages, Markdown their texts. Answers 422 `conversation_too_large` over 16 MiB.
    """
    async with api.resources.database.snapshot() as c:
        session = await sessions.get_session(c, session_id, caller)
        told = await instructions.instructions_of(c, session_id)
        messages = await export.read_conversation(c, session)
    if format == "json":
        body, extension = await asyncio.to_thread(export.as_json, session, told.session, messages), "json"
        kind = "application/json"
    else:
        body, extension = await asyncio.to_thread(export.as_markdown, session, messages), "md"
        kind = "text/markdown; charset=utf-8"
    headers = {"content-disposition": export.content_disposition(session, extension), "cache-control": "no-store"}
    return Response(body, media_type=kind, headers=headers)

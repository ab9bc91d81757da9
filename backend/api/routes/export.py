"""The export of a conversation as a file, and the import of an exported one."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response

from backend.api import export, importing
from backend.api.conversation_schemas import ConversationIn, ImportedOut
from backend.api.deps import AppState, AsCaller, ASession
from backend.api.json_body import load_json
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.schema_base import SessionIdField
from backend.api.schemas import MAX_METADATA_BYTES, MAX_TITLE
from backend.api.state import ApiState
from backend.chat.flows import switch
from backend.chat.models import MAX_DEPTH, Json
from backend.chat.store import instructions, sessions
from backend.chat.store.conversations import imports, trees
from backend.chat.store.instructions import MAX_INSTRUCTIONS
from backend.chat.streams.event_feed import Hint
from backend.config import Settings
from backend.errors import InvalidConversation
from backend.ids import SessionId, new_session_id


class ImportRoute(CallerRoute):
    """A route that takes a whole conversation, which is as large as an export may be, with its indentation."""

    max_values = 500_000
    max_depth = MAX_DEPTH + 8  # a value in a message of the document
    answer_timeout = 60.0

    def body_limit(self, settings: Settings) -> int:
        return 2 * export.MAX_EXPORT_BYTES

    def load(self, body: bytes, settings: Settings) -> Json:
        return load_json(body, self.max_depth)


router = APIRouter(tags=["sessions"], route_class=CallerRoute, responses=responses(401, 404, 422, 503))
importing_router = APIRouter(route_class=ImportRoute)
_CONTENT = {"text/markdown": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
_FILES: dict[int | str, dict[str, Any]] = {200: {"description": "The conversation as a file.", "content": _CONTENT}}


@router.get("/sessions/{session_id}/export", response_class=Response, responses=_FILES)
async def export_conversation(
    api: AppState,
    caller: AsCaller,
    session_id: ASession,
    format: Annotated[Literal["markdown", "json"], Query(description="Texts for people, or all parts.")] = "markdown",
) -> Response:
    """Returns the whole conversation as one file, as it is at one moment, without a running answer's rest.

    JSON has the messages of all branches as AI SDK UIMessages, Markdown the texts of the current branch. Answers 422
    `conversation_too_large` over 16 MiB.
    """
    as_json = format == "json"
    async with api.resources.database.snapshot() as c:
        session = await sessions.get_session(c, session_id, caller)
        adopts = as_json and await trees.has_orphans(c, session_id)
    if adopts:
        await switch.adopt_branches(api.resources, session_id)
    async with api.resources.database.snapshot() as c:
        session = await sessions.get_session(c, session_id, caller)
        told = await instructions.instructions_of(c, session_id)
        messages = await export.read_conversation(c, session)
        tree = await export.read_tree(c, session, messages) if as_json else []
    if as_json:
        body, extension = await asyncio.to_thread(export.as_json, session, told.session, messages, tree), "json"
        kind = "application/json"
    else:
        body, extension = await asyncio.to_thread(export.as_markdown, session, messages), "md"
        kind = "text/markdown; charset=utf-8"
    headers = {"content-disposition": export.content_disposition(session, extension), "cache-control": "no-store"}
    return Response(body, media_type=kind, headers=headers)


@importing_router.post(
    "/sessions/import",
    responses={
        201: {"model": ImportedOut, "description": "The conversation was imported."},
        **responses(400, 404, 408, 413, 415, 429),
    },
)
async def import_conversation(
    api: AppState,
    caller: AsCaller,
    response: Response,
    document: ConversationIn,
    id: Annotated[SessionIdField | None, Query(description="The id of the new session.")] = None,
) -> ImportedOut:
    """Makes a session of the caller from the JSON of an export, with all its branches.

    If the caller already has a session with the `id` of the request, changes nothing and answers 200, so that a request
    can be repeated; without an id each request makes a session. Files, costs and unended operations are not imported:
    the names of files are. Answers 422 `invalid_conversation` if the document is not one that was exported.
    """
    conversation = await asyncio.to_thread(_read, document)
    count = len(document.tree or document.messages)
    title, metadata, told = _about(api, document.session)
    session_id = SessionId(id) if id is not None else new_session_id()
    async with api.resources.database.transaction() as c:
        created = await sessions.create_session(c, session_id, caller.user_id, metadata)
        session = created.session
        if created.is_new:
            api.new_sessions.count(caller.quota_key)
            await imports.write_conversation(c, session_id, caller, title, conversation)
            if told:
                await instructions.set_session_instructions(c, session_id, told)
            session = await sessions.get_session(c, session_id, caller)
    if created.is_new:
        response.status_code = 201
        api.resources.feed.publish(Hint.TITLE_CHANGED, session_id, caller.user_id, title=title)
    return ImportedOut(id=session.id, title=session.title, created_at=session.created_at, messages=count)


def _read(document: ConversationIn) -> imports.ImportedConversation:
    return imports.ImportedConversation.of(importing.read_turns(document.messages, document.tree))


def _about(api: ApiState, session: dict[str, Json]) -> tuple[str | None, Json, str | None]:
    """Returns the title, the metadata and the instructions of an exported session, within their limits."""
    title, metadata, told = session.get("title"), session.get("metadata") or {}, session.get("instructions")
    if not (title is None or isinstance(title, str)) or not (told is None or isinstance(told, str)):
        raise InvalidConversation("The title and the instructions of the session must be texts or null.")
    if not isinstance(metadata, dict) or len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise InvalidConversation(f"The metadata must be an object of at most {MAX_METADATA_BYTES} bytes as JSON.")
    shown = " ".join((title or "").split())[:MAX_TITLE] or None
    allowed = told is not None and len(told) <= MAX_INSTRUCTIONS and api.resources.settings.user_instructions
    return shown, metadata, told if allowed else None


router.include_router(importing_router)

"""The files of a conversation, by their paths: those of messages, and those that tools and clients have written."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from backend.api.deps import AppState, AsCaller, ASession
from backend.api.file_links import link_to
from backend.api.file_schemas import WorkspaceFileOut, WorkspaceOut
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.schemas import Ok
from backend.chat.store import sessions
from backend.chat.store.attachments import workspaces
from backend.chat.store.attachments.workspaces import WorkspaceFile

router = APIRouter(tags=["files"], route_class=CallerRoute, responses=responses(401, 404, 422, 503))
APath = Annotated[str, Path(max_length=250, description="The path of the file, such as reports/may.csv.")]


@router.get("/sessions/{session_id}/workspace")
async def list_workspace(api: AppState, caller: AsCaller, session_id: ASession) -> WorkspaceOut:
    """Returns the files of a conversation: in the folder `attachments` those of messages, and those of its tools."""
    async with api.resources.database.snapshot() as c:
        await sessions.get_session(c, session_id, caller)
        found = await workspaces.list_files(c, session_id)
    return WorkspaceOut(files=[_shown(file) for file in found])


@router.delete("/sessions/{session_id}/workspace/{path:path}")
async def delete_workspace_file(api: AppState, caller: AsCaller, session_id: ASession, path: APath) -> Ok:
    """Deletes a file that a tool has written."""
    async with api.resources.database.transaction() as c:
        await sessions.get_session(c, session_id, caller)
        await workspaces.delete_file(c, session_id, path)
    return Ok()


def _shown(file: WorkspaceFile) -> WorkspaceFileOut:
    part = file.stored.part
    return WorkspaceFileOut(
        path=file.path,
        mediaType=part.media_type,
        size=part.size,
        sha256=file.stored.sha256,
        url=part.url,
        link=link_to(part, file.stored.link_key),
        written=file.written,
    )

"""list_workspace_files: lists the files of the conversation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import JsonObject, ToolResponse, WorkspaceFileList
from backend.chat.store.attachments.workspaces import relative_path
from executor.tools.context import ToolContext
from executor.tools.workspace import PATH_LIMIT, WorkspaceTool

MOST = 200
"""Files that one call names."""


class ListWorkspaceFilesArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    folder: str = Field("", max_length=PATH_LIMIT, description="Only files in this folder, such as reports")


class ListWorkspaceFiles(WorkspaceTool[ListWorkspaceFilesArgs]):
    name: ClassVar[str] = "list_workspace_files"
    description: ClassVar[str] = (
        "List the files of this conversation: those that were made in it, and in the folder attachments those that the "
        "user gave with messages."
    )
    input_type = ListWorkspaceFilesArgs
    idempotent: ClassVar[bool] = True

    async def use(self, call: ListWorkspaceFilesArgs, context: ToolContext) -> ToolResponse:
        folder = relative_path(call.folder).rstrip("/")
        files = await self.workspace.list(context.session_id)
        found = [file for file in files if folder in ("", ".") or file.path.startswith(f"{folder}/")]
        listed: list[JsonObject] = []
        for file in found[:MOST]:
            part = file.stored.part
            listed.append({"path": file.path, "size_bytes": part.size, "mime_type": part.media_type, "url": part.url})
        words = f"{len(found)} files." if len(found) <= MOST else f"The first {MOST} of {len(found)} files."
        return WorkspaceFileList(message=words, session_id=context.session_id, files=listed, total_count=len(found))

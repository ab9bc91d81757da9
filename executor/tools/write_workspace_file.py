"""write_workspace_file: writes a text into a file of the conversation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.models import FILES_PATH
from backend.chat.protocol.tool_responses import ToolResponse, WorkspaceFileWritten
from backend.chat.store.attachments.workspaces import checked_path
from executor.tools.context import ToolContext
from executor.tools.workspace import PATH_LIMIT, WorkspaceTool

MAX_CONTENT = 500_000


class WriteWorkspaceFileArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    path: str = Field(min_length=1, max_length=PATH_LIMIT, description="Its path, such as reports/may.md")
    content: str = Field(max_length=MAX_CONTENT, description="The whole text of the file")


class WriteWorkspaceFile(WorkspaceTool[WriteWorkspaceFileArgs]):
    name: ClassVar[str] = "write_workspace_file"
    description: ClassVar[str] = (
        "Write a text into a file of this conversation, which the user can download. A file at that path is replaced."
    )
    input_type = WriteWorkspaceFileArgs
    idempotent: ClassVar[bool] = True

    async def use(self, call: WriteWorkspaceFileArgs, context: ToolContext) -> ToolResponse:
        path, data = checked_path(call.path), call.content.encode("utf-8", "replace")
        written = await self.workspace.write(context.session_id, {path: data})
        return WorkspaceFileWritten(
            message=f"Wrote {path}.",
            session_id=context.session_id,
            path=path,
            size_bytes=len(data),
            url=f"{FILES_PATH}{written[path]}",
        )

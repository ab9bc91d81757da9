"""delete_workspace_file: deletes a file of the conversation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import ToolResponse, WorkspaceFileDeleted
from backend.chat.store.attachments.workspaces import checked_path
from executor.tools.context import ToolContext
from executor.tools.workspace import PATH_LIMIT, WorkspaceTool


class DeleteWorkspaceFileArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    path: str = Field(min_length=1, max_length=PATH_LIMIT, description="Its path, as list_workspace_files gave it")


class DeleteWorkspaceFile(WorkspaceTool[DeleteWorkspaceFileArgs]):
    name: ClassVar[str] = "delete_workspace_file"
    description: ClassVar[str] = "Delete a file that was made in this conversation. It cannot be restored."
    input_type = DeleteWorkspaceFileArgs
    destructive: ClassVar[bool] = True

    async def use(self, call: DeleteWorkspaceFileArgs, context: ToolContext) -> ToolResponse:
        path = checked_path(call.path)
        await self.workspace.delete(context.session_id, path)
        return WorkspaceFileDeleted(message=f"Deleted {path}.", session_id=context.session_id, path=path)

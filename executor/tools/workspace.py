"""The base of the tools that use the files of a conversation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

from pydantic import BaseModel

from backend.chat.flows.files.workspace import Workspace
from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from backend.chat.store.attachments.workspaces import MAX_PATH
from backend.errors import AppError, FileNotFound
from backend.files.storage import ObjectGone
from executor.tools.context import ToolContext
from executor.tools.tool import Tool

PATH_LIMIT = MAX_PATH + 20
"""Characters of a path as a model gives it, with `/workspace/` before it."""
Input = TypeVar("Input", bound=BaseModel)


class WorkspaceTool(Tool[Input], Generic[Input]):
    """A tool that uses the files of its conversation. Errors of the workspace become its answer."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @abstractmethod
    async def use(self, call: Input, context: ToolContext) -> ToolResponse:
        """Returns the response. May raise AppError and ObjectGone."""

    async def run(self, call: Input, context: ToolContext) -> ToolResponse:
        try:
            return await self.use(call, context)
        except FileNotFound:
            words, code = "There is no such file; list_workspace_files lists all.", FileNotFound.code
        except ObjectGone:
            words, code = "The content of this file is lost.", FileNotFound.code
        except AppError as error:
            words, code = str(error), error.code
        return ErrorResponse(message=words, session_id=context.session_id, error=code)

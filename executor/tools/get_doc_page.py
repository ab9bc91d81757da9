"""get_doc_page: reads one page of the documentation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import DocPage, ErrorResponse, ToolResponse
from executor.tools.context import ToolContext
from executor.tools.documents import Documentation
from executor.tools.tool import Tool


class GetDocPageArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    path: str = Field(min_length=1, max_length=500, description="The path of the page, as search_docs gave it")


class GetDocPage(Tool[GetDocPageArgs]):
    name: ClassVar[str] = "get_doc_page"
    description: ClassVar[str] = "Read one page of the documentation in full."
    input_type = GetDocPageArgs
    idempotent: ClassVar[bool] = True

    def __init__(self, documentation: Documentation) -> None:
        self._documentation = documentation

    async def run(self, call: GetDocPageArgs, context: ToolContext) -> ToolResponse:
        page = self._documentation.page(call.path)
        if page is None:
            return ErrorResponse(
                message="There is no such page; search_docs lists the paths.",
                session_id=context.session_id,
                error="page_not_found",
            )
        return DocPage(
            message=f"The page {page.title}.",
            session_id=context.session_id,
            title=page.title,
            path=page.path,
            content=page.text,
        )

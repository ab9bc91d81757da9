"""get_doc_page: reads one page of the documentation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.tool_responses import DocPage, ErrorResponse, ToolResponse
from executor.tools.documents import Library
from executor.tools.tool import Tool, ToolContext


class Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    path: str = Field(min_length=1, max_length=500, description="The path of the page, as search_docs gave it")


class GetDocPage(Tool[Wanted]):
    name: ClassVar[str] = "get_doc_page"
    description: ClassVar[str] = "Read one page of the documentation in full."
    input_type = Wanted
    idempotent: ClassVar[bool] = True

    def __init__(self, library: Library) -> None:
        self._library = library

    async def run(self, call: Wanted, context: ToolContext) -> ToolResponse:
        page = self._library.page(call.path)
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

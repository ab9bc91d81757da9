"""search_docs: finds pages of the documentation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import DocSearchResult, DocSearchResults, NoResults, ToolResponse
from executor.tools.context import ToolContext
from executor.tools.documents import Documentation
from executor.tools.tool import Tool


class SearchDocsArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    query: str = Field(min_length=1, max_length=500, description="What to look for, in a few words")
    limit: int = Field(5, ge=1, le=20, description="How many pages at the most")


class SearchDocs(Tool[SearchDocsArgs]):
    name: ClassVar[str] = "search_docs"
    description: ClassVar[str] = "Search the documentation. Read a page that looks right with get_doc_page."
    input_type = SearchDocsArgs
    idempotent: ClassVar[bool] = True

    def __init__(self, documentation: Documentation) -> None:
        self._documentation = documentation

    async def run(self, call: SearchDocsArgs, context: ToolContext) -> ToolResponse:
        hits = self._documentation.search(call.query, call.limit)
        if not hits:
            return NoResults(
                message="No page of the documentation fits that.",
                session_id=context.session_id,
                suggestions=["Try other words", "Use fewer words"],
            )
        results = [
            DocSearchResult(path=hit.path, title=hit.title, section=hit.section, snippet=hit.snippet, score=hit.score)
            for hit in hits
        ]
        return DocSearchResults(
            message=f"Found {len(results)} page(s).",
            session_id=context.session_id,
            query=call.query,
            results=results,
            count=len(results),
        )

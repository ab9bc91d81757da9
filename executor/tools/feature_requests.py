"""search_feature_requests and create_feature_request: wishes for the product, in its database and perhaps at GitHub."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.models import Json
from backend.chat.protocol.tool_responses import (
    ErrorResponse,
    FeatureRequestCreated,
    FeatureRequestSearch,
    NeedLogin,
    NoResults,
    ToolResponse,
)
from backend.chat.store.published.feature_requests import FeatureRequest, create_request, search_requests
from backend.errors import TooManyFeatureRequests
from backend.postgres import storable
from executor.tools.context import ToolContext
from executor.tools.tool import Tool

if TYPE_CHECKING:  # few deployments use it
    from executor.tools.github_issues import GitHubIssues

MOST = 10
MAX_DESCRIPTION_CHARS = 500
logger = logging.getLogger(__name__)


class SearchFeatureRequestsArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    query: str = Field(min_length=1, max_length=500, description="Words of the request")


class SearchFeatureRequests(Tool[SearchFeatureRequestsArgs]):
    name: ClassVar[str] = "search_feature_requests"
    description: ClassVar[str] = (
        "Search what users have asked for that this product cannot do yet. Call it before create_feature_request."
    )
    input_type = SearchFeatureRequestsArgs
    idempotent: ClassVar[bool] = True

    def __init__(self, github: GitHubIssues | None = None) -> None:
        self._github = github

    async def run(self, call: SearchFeatureRequestsArgs, context: ToolContext) -> ToolResponse:
        if context.user_id is None:
            return NeedLogin(message="Please sign in to see feature requests.", session_id=context.session_id)
        found = await self._found_at_github(call.query)
        if not found:
            async with context.database.connection() as c:
                found = [_shown(one) for one in await search_requests(c, call.query, MOST)]
        if not found:
            return NoResults(message="Nobody has asked for that yet.", session_id=context.session_id)
        number = "1 request" if len(found) == 1 else f"{len(found)} requests"
        return FeatureRequestSearch(
            message=f"Found {number}: {'; '.join(str(one['title']) for one in found)}",
            session_id=context.session_id,
            results=found,
            count=len(found),
            query=call.query,
        )

    async def _found_at_github(self, query: str) -> list[dict[str, Json]]:
        if self._github is None:
            return []
        from executor.tools.github_issues import GitHubFailure

        try:
            return [one.as_json(MAX_DESCRIPTION_CHARS) for one in await self._github.search(query, MOST)]
        except GitHubFailure as failure:
            logger.warning("issues at GitHub were not searched", extra={"why": str(failure), "status": failure.status})
            return []


def _shown(one: FeatureRequest) -> dict[str, Json]:
    return {
        "id": one.id,
        "title": one.title,
        "description": one.description[:MAX_DESCRIPTION_CHARS],
        "created_at": one.created_at.isoformat(),
    }


class CreateFeatureRequestArgs(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    title: str = Field(min_length=1, max_length=200)
    description: str = Field("", max_length=5_000, description="What is missing and what for, without personal data")


class CreateFeatureRequest(Tool[CreateFeatureRequestArgs]):
    name: ClassVar[str] = "create_feature_request"
    description: ClassVar[str] = (
        "Store a wish of the user for something that this product cannot do. All users here can find it. Ask the user "
        "first, and leave out personal data and secrets."
    )
    input_type = CreateFeatureRequestArgs
    idempotent: ClassVar[bool] = True
    """A repeated call has the same key, and finds the issue of the first one."""

    def __init__(self, github: GitHubIssues | None = None) -> None:
        self._github = github

    async def run(self, call: CreateFeatureRequestArgs, context: ToolContext) -> ToolResponse:
        if context.user_id is None:
            return NeedLogin(message="Please sign in to ask for features.", session_id=context.session_id)
        key = f"{context.task_id}_{context.tool_call_id}"
        try:
            async with context.database.connection() as c:
                made = await create_request(c, context.user_id, key, storable(call.title), storable(call.description))
        except TooManyFeatureRequests as error:
            return ErrorResponse(message=error.detail, session_id=context.session_id, error=error.code)
        stored = FeatureRequestCreated(
            message=f"The feature request “{made.title}” is stored.",
            session_id=context.session_id,
            issue_id=made.id,
            issue_title=made.title,
        )
        return stored if self._github is None else await self._added_at_github(self._github, made, stored)

    async def _added_at_github(
        self, github: GitHubIssues, made: FeatureRequest, stored: FeatureRequestCreated
    ) -> FeatureRequestCreated:
        from executor.tools.github_issues import GitHubFailure

        try:
            issue = await github.create(made.id, made.title, made.description)
        except GitHubFailure as failure:
            logger.warning("an issue was not made", extra={"why": str(failure), "status": failure.status})
            words = f"The feature request “{made.title}” is stored here, but not at GitHub: {failure}."
            return stored.model_copy(update={"message": words})
        words = f"The feature request “{made.title}” is issue #{issue.number} at GitHub."
        return stored.model_copy(update={"message": words, "issue_url": issue.url})

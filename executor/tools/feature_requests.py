"""search_feature_requests and create_feature_request: wishes for the product, stored in its database."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.chat.protocol.tool_responses import (
    ErrorResponse,
    FeatureRequestCreated,
    FeatureRequestSearch,
    NeedLogin,
    NoResults,
    ToolResponse,
)
from backend.chat.store.published.feature_requests import create_request, search_requests
from backend.errors import TooManyFeatureRequests
from backend.postgres import storable
from executor.tools.context import ToolContext
from executor.tools.tool import Tool

MOST = 10
MAX_DESCRIPTION_CHARS = 500


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

    async def run(self, call: SearchFeatureRequestsArgs, context: ToolContext) -> ToolResponse:
        if context.user_id is None:
            return NeedLogin(message="Please sign in to see feature requests.", session_id=context.session_id)
        async with context.database.connection() as c:
            found = await search_requests(c, call.query, MOST)
        if not found:
            return NoResults(message="Nobody has asked for that yet.", session_id=context.session_id)
        number = "1 request" if len(found) == 1 else f"{len(found)} requests"
        return FeatureRequestSearch(
            message=f"Found {number}: {'; '.join(one.title for one in found)}",
            session_id=context.session_id,
            results=[
                {
                    "id": one.id,
                    "title": one.title,
                    "description": one.description[:MAX_DESCRIPTION_CHARS],
                    "created_at": one.created_at.isoformat(),
                }
                for one in found
            ],
            count=len(found),
            query=call.query,
        )


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
    """A repeated call has the same key."""

    async def run(self, call: CreateFeatureRequestArgs, context: ToolContext) -> ToolResponse:
        if context.user_id is None:
            return NeedLogin(message="Please sign in to ask for features.", session_id=context.session_id)
        key = f"{context.task_id}_{context.tool_call_id}"
        try:
            async with context.database.connection() as c:
                made = await create_request(c, context.user_id, key, storable(call.title), storable(call.description))
        except TooManyFeatureRequests as error:
            return ErrorResponse(message=error.detail, session_id=context.session_id, error=error.code)
        return FeatureRequestCreated(
            message=f"The feature request “{made.title}” is stored.",
            session_id=context.session_id,
            issue_id=made.id,
            issue_title=made.title,
        )

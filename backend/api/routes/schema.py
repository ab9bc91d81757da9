"""The settings and types of the server that clients may need."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter

from backend.api.deps import AppState
from backend.api.problems import responses
from backend.api.routes_base import OpenRoute
from backend.api.schemas import Ttl
from backend.chat.models import Json

router = APIRouter(tags=["schema"], route_class=OpenRoute, responses=responses(413, 422))


@router.get("/config/ttl")
async def ttl(api: AppState) -> Ttl:
    """Returns how long a stream can be resumed after it was last active."""
    seconds = api.resources.settings.stream_ttl
    return Ttl(stream_ttl_seconds=seconds, stream_ttl_ms=seconds * 1000)


@router.get("/schema/tool-responses")
async def tool_responses() -> dict[str, Json]:
    """Returns the JSON Schema of all tool responses, as one union."""
    return _tool_responses()


@cache
def _tool_responses() -> dict[str, Json]:
    from backend.chat.protocol.tool_responses import tool_responses_schema  # slow to import, and needed only here

    return tool_responses_schema()

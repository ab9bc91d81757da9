"""What clients may know of the server's settings and types."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter

from backend.api.deps import AtDesk
from backend.api.desk import OpenRoute
from backend.api.problems import responses
from backend.api.schemas import Ttl
from backend.chat.models import Json

router = APIRouter(tags=["schema"], route_class=OpenRoute, responses=responses(413, 422))


@router.get("/config/ttl")
async def ttl(desk: AtDesk) -> Ttl:
    """How long a stream can be resumed after its last sign of life."""
    seconds = desk.house.settings.stream_ttl
    return Ttl(stream_ttl_seconds=seconds, stream_ttl_ms=seconds * 1000)


@router.get("/schema/tool-responses")
async def tool_responses() -> dict[str, Json]:
    """The JSON Schema of the union of all tool responses."""
    return _tool_responses()


@cache
def _tool_responses() -> dict[str, Json]:
    from backend.chat.tool_responses import tool_responses_schema  # nothing else of the API needs all of them

    return tool_responses_schema()

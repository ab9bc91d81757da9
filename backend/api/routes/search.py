"""Full-text search in the messages of the signed-in user."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.deps import AppState, AsCaller
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.schemas import SearchResult, SearchResults
from backend.chat.store.derived.search import CANDIDATES, find_messages

router = APIRouter(tags=["sessions"], route_class=CallerRoute, responses=responses(401, 422, 503))


@router.get("/search")
async def search_messages(
    api: AppState,
    caller: AsCaller,
    q: Annotated[str, Query(min_length=1, max_length=200, description='Words, or words side by side in "quotes".')],
    limit: Annotated[int, Query(ge=1, le=50, description="The largest number of results to return.")] = 20,
    offset: Annotated[int, Query(ge=0, le=CANDIDATES, description="The number of results to skip.")] = 0,
) -> SearchResults:
    """Returns the messages of the caller that have all words of `q`, or longer words that begin with them.

    The best of the 200 newest are first. A new message can be found a few seconds after it was stored. The list of an
    anonymous caller is empty.
    """
    if caller.user_id is None:
        return SearchResults(results=[])
    async with api.resources.database.snapshot() as c:
        found = await find_messages(c, caller.user_id, q, limit=limit, offset=offset)
    return SearchResults(results=[SearchResult.of(hit) for hit in found])

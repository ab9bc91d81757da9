"""The clients of the web, for the tools web_fetch and web_search. A process opens them once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

from backend.config import Settings
from executor.web.failures import WebFailure

if TYPE_CHECKING:  # see below
    from executor.web.fetching import Fetcher
    from executor.web.search import Searcher

TOOLS, OUTCOMES = ("web_fetch", "web_search"), ("completed", "failed", "refused")


@dataclass(frozen=True, slots=True)
class Web:
    """The fetcher, and the searcher. None for what is turned off or not configured."""

    fetcher: Fetcher | None = None
    searcher: Searcher | None = None
    outcomes: dict[tuple[str, str], int] = field(default_factory=lambda: dict.fromkeys(product(TOOLS, OUTCOMES), 0))
    """The number of calls for each pair of a tool (TOOLS) and an outcome (OUTCOMES)."""

    def count(self, tool: str, failure: WebFailure | None) -> None:
        """Counts a call: `refused` is one for something that may not be fetched."""
        refused = failure is not None and failure.code in ("invalid_url", "address_refused")
        self.outcomes[tool, "refused" if refused else "failed" if failure is not None else "completed"] += 1


@asynccontextmanager
async def open_web(settings: Settings) -> AsyncIterator[Web]:
    """Yields what WEB_FETCH and the settings of web_search turn on."""
    fetcher, searcher = None, None
    async with AsyncExitStack() as stack:
        if settings.web_fetch:
            from executor.web.fetching import open_fetcher  # an executor without it starts faster

            fetcher = await stack.enter_async_context(open_fetcher())
        if settings.searches_web:
            from executor.web.search import open_searcher, service_of  # see above

            searcher = await stack.enter_async_context(open_searcher(service_of(settings)))
        yield Web(fetcher, searcher)

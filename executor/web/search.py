"""Search of the web at the service that the operator has set. A process has one searcher, if any.

The service is the operator's choice, so its address is not checked as those of pages are. Its answer is read with the
same suspicion: it is cut, and what is no web address is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson

from backend.chat.models import Json
from backend.config import Settings
from backend.json_client.retry_after import retry_after_of
from executor.llm.clean_text import clean
from executor.llm.sources import find_source
from executor.web.failures import WebFailure
from executor.web.search_services import Brave, FoundPage, SearXNG, Service, Tavily

LIMIT = 15.0
"""Seconds that a search may take."""
MAX_ANSWER, MAX_REFUSAL = 2_000_000, 20_000
"""Bytes that are read of an answer, and of a refusal."""
MAX_SNIPPET = 500
"""Characters."""
AT_ONCE = 16
"""Searches of one executor at the same time. Others wait."""
_OPERATOR = "Please tell whoever runs this service."
_WORDS = {
    "authentication": f"The search service refused this service's key. {_OPERATOR}",
    "quota_exceeded": f"The account at the search service is used up. {_OPERATOR}",
    "bad_request": "The search service refused this query.",
    "unavailable": "The search service does not work right now. Try again later.",
    "timeout": f"The search took more than {LIMIT:.0f} s.",
}
logger = logging.getLogger(__name__)


class Searcher:
    """The client of one executor."""

    def __init__(self, client: aiohttp.ClientSession, service: Service) -> None:
        self._client = client
        self._service = service

    async def search(self, query: str, count: int) -> list[FoundPage]:
        """Returns up to `count` pages, best first. Raises WebFailure."""
        try:
            async with asyncio.timeout(LIMIT):
                return _found_in(await self._ask(query, count), count)
        except TimeoutError:
            raise self._failed("timeout", "no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed("unavailable", type(error).__name__) from error
        except (KeyError, TypeError):
            raise self._failed("unavailable", "the answer has not the documented form") from None

    async def _ask(self, query: str, count: int) -> list[Json]:
        asked = self._service.request(query, count)
        async with self._client.request(
            asked.method, asked.url, params=asked.params, json=asked.body, headers=asked.headers, allow_redirects=False
        ) as response:
            if response.status == 200:
                return self._service.results(orjson.loads(await _up_to(MAX_ANSWER, response)))
            body = (await _up_to(MAX_REFUSAL, response)).decode(errors="replace")
            code = self._service.code_of(response.status, body)
            wait = retry_after_of(response.headers) if code == "rate_limited" else None
            raise self._failed(code, f"status {response.status}", wait)

    def _failed(self, code: str, note: str, wait: float | None = None) -> WebFailure:
        logger.warning("a web search failed", extra={"service": self._service.name, "code": code, "error": note})
        if code == "rate_limited":
            when = "later" if wait is None else f"in {max(1, round(wait))} s"
            return WebFailure(code, f"The search service is asked too often. Try again {when}.")
        return WebFailure(code, _WORDS[code])


async def _up_to(most: int, response: aiohttp.ClientResponse) -> bytes:
    """Returns the body, or its first bytes."""
    body = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        body += piece
        if len(body) >= most:
            break
    return bytes(body[:most])


def _found_in(results: list[Json], count: int) -> list[FoundPage]:
    """Returns the pages with valid addresses, each once."""
    found: dict[str, FoundPage] = {}
    for result in results:
        source = find_source(result)
        if source is None or source.url in found or not isinstance(result, dict):
            continue
        snippet = result.get("snippet")
        words = " ".join(clean(snippet).split())[:MAX_SNIPPET] if isinstance(snippet, str) else ""
        found[source.url] = FoundPage(source.url, source.title or source.url, words)
        if len(found) == count:
            break
    return list(found.values())


def service_of(settings: Settings) -> Service:
    """Returns the service of the settings: a SearXNG, else Brave, else Tavily. At least one must be set."""
    if settings.web_search_url is not None:
        return SearXNG(settings.web_search_url)
    if settings.brave_search_api_key is not None:
        return Brave(settings.brave_search_api_key.get_secret_value())
    assert settings.tavily_api_key is not None, "the caller has looked"
    return Tavily(settings.tavily_api_key.get_secret_value())


@asynccontextmanager
async def open_searcher(service: Service) -> AsyncIterator[Searcher]:
    """Opens the client of a process."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=AT_ONCE),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=LIMIT, connect=5.0),
        trust_env=False,
    ) as client:
        yield Searcher(client, service)

"""The pages that a provider cites. A citation without a valid web address is skipped and never fails the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from backend.chat.models import Json
from executor.llm.clean_text import clean
from executor.llm.events import Source

MAX_URL = 2_000  # characters
MAX_TITLE = 300  # characters
MAX_PAGES = 200  # of one list
_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f\ud800-\udfff]+", re.IGNORECASE)


def find_source(citation: Json) -> Source | None:
    """Reads an object with `url` and an optional `title`, which is cut to MAX_TITLE.

    Returns None if the URL is missing, invalid or longer than MAX_URL.
    """
    url = citation.get("url") if isinstance(citation, dict) else None
    if not isinstance(url, str) or len(url) > MAX_URL or not _URL.fullmatch(url):
        return None
    title = citation.get("title")
    words = " ".join(clean(title).split()) if isinstance(title, str) else ""
    return Source(url, words[:MAX_TITLE] or None)


def cited_pages(annotations: Json) -> Iterator[Source]:
    """Yields the pages in OpenAI's annotations: `{"type": "url_citation", "url_citation": {"url", "title", ...}}`."""
    for annotation in annotations if isinstance(annotations, list) else ():
        if isinstance(annotation, dict) and annotation.get("type") == "url_citation":
            source = find_source(annotation.get("url_citation"))
            if source is not None:
                yield source


def pages_beside(lists: Json) -> Iterator[Source]:
    """Yields the pages of lists that stand beside the text, each once: URLs, or objects with `url` and `title`.

    Perplexity and xAI send `citations`, Perplexity `search_results` with titles too. LiteLLM passes Anthropic's
    citations on, in lists of lists.
    """
    seen: set[str] = set()
    for item in _flat(lists, 4):
        source = find_source({"url": item} if isinstance(item, str) else item)
        if source is not None and source.url not in seen and len(seen) < MAX_PAGES:
            seen.add(source.url)
            yield source


def _flat(value: Json, depth: int) -> Iterator[Json]:
    if isinstance(value, list):
        for item in value if depth else ():
            yield from _flat(item, depth - 1)
    else:
        yield value

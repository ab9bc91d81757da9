"""The pages that a provider cites. What is no web address is left out: a bad citation never costs the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from backend.chat.models import Json
from executor.llm.clean_text import clean
from executor.llm.events import Source

MAX_URL = 2_000
MAX_TITLE = 300
_URL = re.compile(r"https?://[^\s\x00-\x1f\x7f\ud800-\udfff]+", re.IGNORECASE)


def find_source(citation: Json) -> Source | None:
    """The page of an object with `url` and, perhaps, `title`; a URL too long to keep is none, a title is cut."""
    url = citation.get("url") if isinstance(citation, dict) else None
    if not isinstance(url, str) or len(url) > MAX_URL or not _URL.fullmatch(url):
        return None
    title = citation.get("title")
    words = " ".join(clean(title).split()) if isinstance(title, str) else ""
    return Source(url, words[:MAX_TITLE] or None)


def cited_pages(annotations: Json) -> Iterator[Source]:
    """The pages among OpenAI's annotations: `{"type": "url_citation", "url_citation": {"url", "title", ...}}`."""
    for annotation in annotations if isinstance(annotations, list) else ():
        if isinstance(annotation, dict) and annotation.get("type") == "url_citation":
            source = find_source(annotation.get("url_citation"))
            if source is not None:
                yield source

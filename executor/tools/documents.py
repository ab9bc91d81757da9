"""Search over a folder of Markdown pages: their sections, ranked by BM25.

Source of the ranking: Robertson and Zaragoza, "The Probabilistic
Relevance Framework: BM25 and Beyond", 2009, with the usual k1 = 1.2 and b = 0.75.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

MAX_PAGES = 5_000
MAX_PAGE_BYTES = 1_000_000
K1, B = 1.2, 0.75
SNIPPET_CHARS = 300
_WORD = re.compile(r"[^\W_]{2,}")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file. `path` is relative to the folder and has forward slashes."""

    path: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A section that matches a query. A higher score is better; scores of different queries cannot be compared."""

    path: str
    title: str
    section: str
    snippet: str
    score: float


@dataclass(frozen=True, slots=True)
class _Section:
    page: Page
    heading: str
    text: str
    words: Counter[str]
    length: int


class Documentation:
    """The pages below `folder`, or none if there is no such folder. Reads all of them, so make it at the start."""

    def __init__(self, folder: Path) -> None:
        self._index = _Index(_read(folder))

    def search(self, query: str, limit: int) -> list[Hit]:
        """Returns up to `limit` sections, best first, at most one of each page."""
        return self._index.search(query, limit)

    def page(self, path: str) -> Page | None:
        """Returns the page, or None. The path is only a key: it never opens a file."""
        return self._index.pages.get(path.strip().lstrip("/"))


class _Index:
    def __init__(self, pages: dict[str, Page]) -> None:
        self.pages = pages
        self._sections = [section for page in pages.values() for section in _sections_of(page)]
        self._holding = Counter(word for section in self._sections for word in section.words)
        self._mean_length = sum(section.length for section in self._sections) / max(1, len(self._sections))

    def search(self, query: str, limit: int) -> list[Hit]:
        words = set(_words(query))
        scored = [(self._score(section, words), section) for section in self._sections]
        best: dict[str, tuple[float, _Section]] = {}
        for score, section in scored:
            if score > 0 and score > best.get(section.page.path, (0.0, section))[0]:
                best[section.page.path] = (score, section)
        ranked = sorted(best.values(), key=lambda pair: (-pair[0], pair[1].page.path))[:limit]
        return [
            Hit(s.page.path, s.page.title, s.heading, _snippet(s.text, words), round(score, 3)) for score, s in ranked
        ]

    def _score(self, section: _Section, words: set[str]) -> float:
        score = 0.0
        for word in words & section.words.keys():
            count, holding = section.words[word], self._holding[word]
            rarity = math.log(1 + (len(self._sections) - holding + 0.5) / (holding + 0.5))
            norm = K1 * (1 - B + B * section.length / self._mean_length)
            score += rarity * count * (K1 + 1) / (count + norm)
        return score


def _read(folder: Path) -> dict[str, Page]:
    pages: dict[str, Page] = {}
    for file in sorted(folder.rglob("*.md")) if folder.is_dir() else []:
        if len(pages) >= MAX_PAGES or not file.is_file() or file.stat().st_size > MAX_PAGE_BYTES:
            continue
        text = file.read_text(encoding="utf-8", errors="replace").replace("\0", "")
        path = file.relative_to(folder).as_posix()
        heading = _HEADING.search(text)
        pages[path] = Page(path, heading[1] if heading else file.stem, text)
    return pages


def _sections_of(page: Page) -> list[_Section]:
    starts = [0, *(match.start() for match in _HEADING.finditer(page.text) if match.start() > 0), len(page.text)]
    sections = []
    for start, end in itertools.pairwise(starts):
        text = page.text[start:end].strip()
        heading = _HEADING.match(text)
        words = Counter(_words(f"{page.title} {text}"))
        sections.append(_Section(page, heading[1] if heading else page.title, text, words, words.total()))
    return sections


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _snippet(text: str, words: set[str]) -> str:
    """Returns the part of the section around the first of `words`."""
    body = _HEADING.sub("", text, count=1).strip() or text
    at = min((found for word in words if (found := body.lower().find(word)) >= 0), default=0)
    start = max(0, at - SNIPPET_CHARS // 3)
    return " ".join(body[start : start + SNIPPET_CHARS].split())

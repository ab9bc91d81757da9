"""What the docs name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.chat import chunks, keys

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PATH = re.compile(r"`((?:backend|executor|tests|bench|docs|prisma|deploy|web)/[\w./-]*|[\w-]+\.(?:py|prisma|yml))`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    named = {ROOT / path for path in _PATH.findall(text) if "/" in path}
    bare = {path for path in _PATH.findall(text) if "/" not in path}
    known = {
        path.name for folder in ("backend", "executor", "tests", "bench") for path in (ROOT / folder).rglob("*.py")
    }
    known |= {path.name for path in ROOT.iterdir()}
    assert not [str(path) for path in named if not path.exists()]
    assert bare <= known
    assert not [link for link in _LINK.findall(text) if not (page.parent / link).exists()]


def test_decisions_fit_on_a_page() -> None:
    long = [page.name for page in (ROOT / "docs" / "decisions").glob("*.md") if len(page.read_text().splitlines()) > 60]
    assert not long


def test_the_page_about_redis_names_every_control_entry() -> None:
    text = (ROOT / "docs" / "redis.md").read_text()
    for entry in (chunks.FENCE, chunks.MARKER.strip(), chunks.END):
        assert f"`{entry.decode()}" in text


def test_the_table_of_keys_names_every_key() -> None:
    table = keys.__doc__ or ""
    made = (keys.BORN, keys.TURNS, keys.DEAD_TURNS, keys.CANCEL_CHANNEL, "chat:stream:", "chat:lock:", "chat:executor:")
    assert not [key for key in made if key not in table]

"""Checks the docs against the code: pages name existing things, and the product's names are explained words."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from backend.chat import keys
from backend.chat.protocol import chunks
from tests import ROOT
from tests.every_metric import every_metric
from tests.measures import Docstring

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
RUNBOOK = ROOT / "docs" / "runbook.md"
MODULES = [*sorted((ROOT / "backend").rglob("*.py")), *sorted((ROOT / "executor").rglob("*.py"))]
EXPLAINED = [path for path in MODULES if path.is_relative_to(ROOT / "executor") or "backend/chat/" in path.as_posix()]
RETIRED = re.compile(
    r"board|crew|desks?|doors?|ears?|houses?|keepers?|leash(ed)?|pace|seats?|standing|talk|wish(ed|es)?"
)
"""Private metaphors that a term of the field has replaced."""
_PATH = re.compile(r"`((?:backend|executor|tests|bench|docs|prisma|deploy|web)/[\w./-]*|[\w-]+\.(?:py|prisma|yml))`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_ANCHOR = re.compile(r"\]\(([^):#]*)#([^)]+)\)")
_LOGGED = re.compile(r"`((?:backend|executor)\.[\w.]+)`(?: \||,)[^`|]*`([^`]+)`")
"""A logger and a quotation of its messages, in the runbook."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_heading_that_a_page_links_to_exists(page: Path) -> None:
    missing = [
        f"{file}#{anchor}"
        for file, anchor in _ANCHOR.findall(page.read_text())
        if anchor not in anchors_of(page.parent / file if file else page)
    ]
    assert not missing


def test_the_runbook_quotes_words_of_messages_that_are_logged() -> None:
    quoted = _LOGGED.findall(RUNBOOK.read_text())
    assert len(quoted) > 30
    assert not [(logger, words) for logger, words in quoted if not any(words in text for text in _texts_of(logger))]


def test_the_page_about_metrics_lists_all_of_them_with_type_and_labels() -> None:
    assert sorted(_listed_metrics()) == sorted(metric for metric in every_metric() if metric[0] != "process_")


def test_the_runbook_alarms_at_existing_metrics() -> None:
    alarms = RUNBOOK.read_text().partition("## Alarms")[2].partition("\n## ")[0]
    alarmed = set(re.findall(r"^\| `(\w+?)(?:_total)?(?:\{[^`]*\})?`", alarms, re.MULTILINE))
    assert len(alarmed) > 15
    assert alarmed <= {name for name, _, _ in every_metric()} | {"up"}


def _listed_metrics() -> list[tuple[str, str, tuple[str, ...]]]:
    """Returns name, type and labels of every row of the page about metrics."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    return [(name, kind, tuple(sorted(re.findall(r"`(\w+)`", labels)))) for name, kind, labels in rows]


def test_the_glossary_or_its_docstring_says_what_a_module_is() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    unclear = []
    for path in EXPLAINED:
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        if path.read_text().strip() and (not docstring or Docstring(path.name, docstring).headless):
            unclear.append(str(path.relative_to(ROOT)))
    assert not [name for name in unclear if f"`{name}`" not in glossary]


def test_the_architecture_lists_the_layers_that_the_import_contracts_hold() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    page = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    exhaustive = [contract["layers"] for contract in contracts if contract.get("exhaustive")]
    assert len(exhaustive) == 2
    for layers in exhaustive:
        assert " over ".join(f"`{layer}`" for layer in layers) in page


def test_nothing_is_named_by_a_retired_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name in sorted({path.stem, *_names_given_in(ast.parse(path.read_text()))})
        if any(RETIRED.fullmatch(word.lower()) for word in _WORD.findall(name))
    ]
    assert not found, "\n".join(found)


def _names_given_in(tree: ast.Module) -> Iterator[str]:
    """Yields the names of classes, functions, parameters, variables and attributes that a module defines."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


@cache
def _texts_of(logger: str) -> list[str]:
    """Returns every string in the module or package of a logger."""
    place = ROOT / logger.replace(".", "/")
    files = [*place.rglob("*.py")] if place.is_dir() else [place.with_suffix(".py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@cache
def anchors_of(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

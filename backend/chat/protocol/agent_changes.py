"""The differences between two versions of an agent, in words for the user and the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backend.chat.models import Json

_IN_WORDS = {
    "name": "name",
    "description": "description",
    "is_active": "state",
    "input_schema": "inputs",
    "output_schema": "outputs",
}


def changes_between(before: Mapping[str, Json], after: Mapping[str, Json]) -> str:
    """Returns the differences of two stored documents, such as `1 node added, name changed`, or an empty string."""
    return ", ".join([*_of_members("node", before, after), *_of_members("link", before, after), *_other(before, after)])


def _of_members(kind: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[str]:
    old, new = ({one["id"]: one for one in document[f"{kind}s"]} for document in (before, after))
    changed = sum(old[id] != new[id] for id in old.keys() & new.keys())
    for count, what in ((len(new.keys() - old.keys()), "added"), (len(old.keys() - new.keys()), "removed")):
        yield from _counted(count, kind, what)
    yield from _counted(changed, kind, "changed")


def _counted(count: int, kind: str, what: str) -> Iterator[str]:
    if count:
        yield f"{count} {kind}{'s' if count > 1 else ''} {what}"


def _other(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    differ = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    differ -= {"id", "version", "nodes", "links"}
    yield from (f"{words} changed" for name, words in _IN_WORDS.items() if name in differ)
    if differ - _IN_WORDS.keys():
        yield "other properties changed"

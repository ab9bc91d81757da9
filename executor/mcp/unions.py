"""The root of an input schema, as one object without a reference or a union, which providers refuse there."""

from __future__ import annotations

import re
from typing import Any

MAX_HOPS, MAX_BRANCHES, MAX_MERGES = 16, 64, 500
"""References that are followed in a row, branches of a union that are merged, and merges in all."""
_PLACE = re.compile(r"[0-9]{1,9}")
_UNIONS = ("allOf", "anyOf", "oneOf")


class UnusableSchema(Exception):
    """A schema that cannot be repaired without a change of its meaning. The message says why."""


class References:
    """References within one document, as JSON pointers."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self.merges = 0

    def find(self, reference: str) -> Any:
        """Returns what `#/a/b` points to; None if it points to nothing or elsewhere."""
        if reference == "#":
            return self._document
        if not reference.startswith("#/"):
            return None
        found = self._document
        for step in (step.replace("~1", "/").replace("~0", "~") for step in reference[2:].split("/")):
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list) and _PLACE.fullmatch(step) and int(step) < len(found):
                found = found[int(step)]
            else:
                return None
        return found


def merged_root(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema with its root's references and unions resolved. Raises UnusableSchema."""
    root = _merged(schema, References(schema), 0)
    if not _may_be_object(root):
        raise UnusableSchema("its root is no object")
    return root


def _merged(schema: dict[str, Any], refs: References, hops: int) -> dict[str, Any]:
    refs.merges += 1
    if hops > MAX_HOPS or refs.merges > MAX_MERGES:
        raise UnusableSchema("its references have no end, or are too many")
    if "$ref" in schema:
        target = refs.find(schema["$ref"]) if isinstance(schema["$ref"], str) else None
        if not isinstance(target, dict):
            raise UnusableSchema("its root refers to something that is not in it")
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _merged(_both(target, beside), refs, hops + 1)
    merged = {key: value for key, value in schema.items() if key not in _UNIONS}
    for union in _UNIONS:
        branches = [
            _merged(branch, refs, hops + 1)
            for branch in _listed(schema.get(union))[:MAX_BRANCHES]
            if isinstance(branch, dict)
        ]
        objects = [branch for branch in branches if _may_be_object(branch)]
        if union == "allOf":
            for branch in branches:
                merged = _both(merged, branch)
        elif objects:
            merged = _both(merged, _any_of(objects))
        elif branches:
            raise UnusableSchema("its root is no object")
    return merged


def _may_be_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind is None or kind == "object" or (isinstance(kind, list) and "object" in kind) or kind in ("dict", "map")


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema that allows what both schemas allow."""
    properties = dict(_mapped(one.get("properties")))
    for name, value in _mapped(other.get("properties")).items():
        properties[name] = value if properties.get(name, value) == value else {"allOf": [properties[name], value]}
    required = [*_listed(one.get("required")), *_listed(other.get("required"))]
    merged = {**other, **one}
    for definitions in ("$defs", "definitions"):
        if found := {**_mapped(other.get(definitions)), **_mapped(one.get(definitions))}:
            merged[definitions] = found
    said = [text for text in (one.get("description"), other.get("description")) if isinstance(text, str) and text]
    merged |= {"description": " ".join(dict.fromkeys(said))} if said else {}
    merged |= {"properties": properties} if properties else {}
    merged |= {"required": list(dict.fromkeys(map(_hashable, required)))} if required else {}
    if one.keys() & {"properties"} and other.keys() & {"properties"}:  # each would forbid the other's properties
        merged.pop("additionalProperties", None)
    return merged


def _any_of(branches: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the smallest object schema that allows what any branch allows. Its description lists the branches."""
    properties: dict[str, list[Any]] = {}
    for branch in branches:
        for name, value in _mapped(branch.get("properties")).items():
            kinds = properties.setdefault(name, [])
            if value not in kinds:
                kinds.append(value)
    common = [
        name
        for name in _listed(branches[0].get("required"))
        if all(name in _listed(branch.get("required")) for branch in branches)
    ]
    merged: dict[str, Any] = {"properties": {name: _one_of(kinds) for name, kinds in properties.items()}}
    if common:
        merged["required"] = common
    if len(branches) > 1:
        merged["description"] = "The arguments are one of: " + "; or ".join(map(_described, branches))
    return merged


def _one_of(kinds: list[Any]) -> Any:
    if len(kinds) == 1:
        return kinds[0]
    choices = [_choices(kind) for kind in kinds]
    if all(choices):
        values = [value for found in choices for value in found or ()]
        about = {key: value for key, value in kinds[0].items() if key not in ("const", "enum")}
        return {**about, "enum": [value for place, value in enumerate(values) if value not in values[:place]]}
    return {"anyOf": kinds}


def _choices(kind: Any) -> list[Any] | None:
    if not isinstance(kind, dict):
        return None
    return [kind["const"]] if "const" in kind else _listed(kind.get("enum")) or None


def _described(branch: dict[str, Any]) -> str:
    """Returns the names of a branch's parameters, with the values that tell it from others."""
    words = []
    required = _listed(branch.get("required"))
    names = list(dict.fromkeys([*_mapped(branch.get("properties")), *map(_hashable, required)]))
    for name in names[:20]:
        choices = _choices(_mapped(branch.get("properties")).get(name))
        value = f" = {choices[0]!r}" if choices is not None and len(choices) == 1 else ""
        words.append(f"{name}{value}{'' if name in required else ' (optional)'}")
    title = branch.get("title")
    return (f"{title}: " if isinstance(title, str) else "") + (", ".join(words) or "no arguments")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _hashable(value: Any) -> str:
    return value if isinstance(value, str) else str(value)

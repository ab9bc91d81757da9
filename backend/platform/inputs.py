"""Checks of inputs for agents and blocks, against the JSON Schema that the agent platform gives.

Only what a user can be asked for is checked here: missing inputs and wrong types. The platform checks everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backend.chat.models import Json

_IS_TYPE: Mapping[str, Callable[[Json], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}


def fields_of(schema: Mapping[str, Json]) -> dict[str, Any]:
    """Returns the schema of each input, in their order."""
    fields = schema.get("properties")
    return fields if isinstance(fields, dict) else {}


def required_of(schema: Mapping[str, Json]) -> list[str]:
    required = schema.get("required")
    return [one for one in required if isinstance(one, str)] if isinstance(required, list) else []


def missing_inputs(schema: Mapping[str, Json], inputs: Mapping[str, Json]) -> list[str]:
    """Returns the names of the required inputs that have no value, or null."""
    return [name for name in required_of(schema) if inputs.get(name) is None]


def wrong_inputs(schema: Mapping[str, Json], inputs: Mapping[str, Json]) -> dict[str, str]:
    """Returns what is wrong with each input that does not fit, as the end of a sentence that begins with its name."""
    found = ((name, _problem(schema, name, value)) for name, value in inputs.items())
    return {name: problem for name, problem in found if problem is not None}


def _problem(schema: Mapping[str, Json], name: str, value: Json) -> str | None:
    field = fields_of(schema).get(name)
    if field is None:
        any_name = "properties" not in schema or schema.get("additionalProperties") is True
        return None if any_name else "is not one of its inputs"
    kinds = field.get("type") if isinstance(field, dict) else None
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if value is None or not isinstance(kinds, list):
        return None
    known = [kind for kind in kinds if isinstance(kind, str) and kind in _IS_TYPE]
    if known and not any(_IS_TYPE[kind](value) for kind in known):
        return f"must be of type {' or '.join(known)}"
    choices = field.get("enum")
    if isinstance(choices, list) and value not in choices:
        return f"must be one of {', '.join(map(str, choices[:20]))}"
    return None

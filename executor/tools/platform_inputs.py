"""Checks of inputs for agents and blocks, against the JSON Schema that the agent platform gives.

Only what a user can be asked for is checked here: missing inputs and wrong types. The platform checks everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.chat.models import Json
from backend.chat.protocol.tool_responses import InputValidationError, SetupRequirements, ToolResponse

_IS_TYPE: Mapping[str, Callable[[Json], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}
MOST_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class Runnable:
    """What is about to run: an agent, with its version, or a block."""

    kind: Literal["agent", "block"]
    id: str
    name: str
    schema: dict[str, Json]
    version: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        fields = self.schema.get("properties")
        return fields if isinstance(fields, dict) else {}

    @property
    def required(self) -> list[str]:
        required = self.schema.get("required")
        return [one for one in required if isinstance(one, str)] if isinstance(required, list) else []


def response_to_inputs(wanted: Runnable, inputs: Mapping[str, Json], session: str) -> ToolResponse | None:
    """Returns a response that names the inputs that are missing or wrong, or None if nothing is."""
    wrong = [problem for name, value in inputs.items() if (problem := _problem(wanted, name, value)) is not None]
    if wrong:
        return InputValidationError(
            message=f"The inputs of the {wanted.kind} “{wanted.name}” do not fit: {'; '.join(wrong[:MOST_PROBLEMS])}. "
            f"It takes {_signature(wanted)}.",
            session_id=session,
            problems=wrong[:MOST_PROBLEMS],
        )
    missing = [name for name in wanted.required if inputs.get(name) is None]
    if not missing:
        return None
    return SetupRequirements(
        message=f"The {wanted.kind} “{wanted.name}” needs {', '.join(missing)}. Ask the user for what you do not know.",
        session_id=session,
        setup_info={
            "kind": wanted.kind,
            "id": wanted.id,
            "name": wanted.name,
            **({} if wanted.version is None else {"version": wanted.version}),
            "missing": list(missing),
            "given": dict(inputs),
            "input_schema": wanted.schema,
            "property_order": list(wanted.fields),
        },
    )


def _problem(wanted: Runnable, name: str, value: Json) -> str | None:
    field = wanted.fields.get(name)
    if field is None:
        any_name = "properties" not in wanted.schema or wanted.schema.get("additionalProperties") is True
        return None if any_name else f"{name} is not one of its inputs"
    kinds = field.get("type") if isinstance(field, dict) else None
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if value is None or not isinstance(kinds, list):
        return None
    known = [kind for kind in kinds if kind in _IS_TYPE]
    if known and not any(_IS_TYPE[kind](value) for kind in known):
        return f"{name} must be of type {' or '.join(known)}"
    choices = field.get("enum")
    if isinstance(choices, list) and value not in choices:
        return f"{name} must be one of {', '.join(map(str, choices[:20]))}"
    return None


def _signature(wanted: Runnable) -> str:
    words = []
    for name, field in wanted.fields.items():
        kind = field.get("type") if isinstance(field, dict) else None
        words.append(f"{name} ({kind if isinstance(kind, str) else 'anything'})")
    return ", ".join(words) or "no inputs"

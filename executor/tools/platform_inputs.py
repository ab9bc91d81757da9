"""The responses of tools when inputs for an agent or a block are missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.chat.models import Json
from backend.chat.protocol.tool_responses import InputValidationError, SetupRequirements, ToolResponse
from backend.platform.inputs import fields_of, missing_inputs, required_of, wrong_inputs

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
        return fields_of(self.schema)

    @property
    def required(self) -> list[str]:
        return required_of(self.schema)


def response_to_inputs(wanted: Runnable, inputs: Mapping[str, Json], session: str) -> ToolResponse | None:
    """Returns a response that names the inputs that are missing or wrong, or None if nothing is."""
    wrong = [f"{name} {problem}" for name, problem in wrong_inputs(wanted.schema, inputs).items()]
    if wrong:
        return InputValidationError(
            message=f"The inputs of the {wanted.kind} “{wanted.name}” do not fit: {'; '.join(wrong[:MOST_PROBLEMS])}. "
            f"It takes {_signature(wanted)}.",
            session_id=session,
            problems=wrong[:MOST_PROBLEMS],
        )
    missing = missing_inputs(wanted.schema, inputs)
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


def _signature(wanted: Runnable) -> str:
    words = []
    for name, field in wanted.fields.items():
        kind = field.get("type") if isinstance(field, dict) else None
        words.append(f"{name} ({kind if isinstance(kind, str) else 'anything'})")
    return ", ".join(words) or "no inputs"

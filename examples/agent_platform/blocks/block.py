"""The type of a block: typed inputs and outputs, and what it does."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

Kind = Literal["action", "input", "output", "trigger"]
Schema = dict[str, Any]
Outputs = dict[str, Any]
"""The values of the outputs that fire. An output that is absent does not fire."""

_NAMESPACE = uuid.UUID("5d1c6f0e-6f0b-4d9e-9f0a-6a2f3c1b7e42")
_MOST_ERRORS = 20


def block_id(name: str) -> str:
    """Returns the id of a block, which never changes."""
    return str(uuid.uuid5(_NAMESPACE, f"block {name}"))


class BlockFailed(Exception):
    """A block could not do its work. Its message is a sentence for the user."""


class InvalidInputs(Exception):
    """The inputs of a block are missing or not valid."""

    def __init__(self, details: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{detail['field']}: {detail['message']}" for detail in details))
        self.details = details


class Shelf(Protocol):
    """What blocks may store: values of a user's graph, and texts of a run."""

    async def get_value(self, user_id: str, graph_id: str, key: str) -> tuple[Any] | None: ...
    async def set_value(self, user_id: str, graph_id: str, key: str, value: Any) -> None: ...
    async def write_text(self, run_id: str, name: str, text: str, *, append: bool) -> int: ...
    async def read_text(self, run_id: str, name: str) -> str | None: ...


class Web(Protocol):
    """The client of web pages, which reaches permitted addresses only."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a web server."""

    status: int
    content_type: str
    text: str


class TextModel(Protocol):
    """The language model."""

    async def write(self, instruction: str, text: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What blocks may use."""

    shelf: Shelf
    web: Web
    model: TextModel
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Context:
    """The run, or the single call, that a block works for."""

    user_id: str
    graph_id: str
    run_id: str | None
    """None for a single call of a block."""
    services: Services
    node_input: Mapping[str, Any] = field(default_factory=dict)
    payload: Any = None
    """What the trigger brought."""


class Pins(BaseModel):
    """The inputs of a block. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


@dataclass(frozen=True)
class Block:
    """A block of the platform. `run` gets an instance of `pins`."""

    name: str
    description: str
    categories: tuple[str, ...]
    pins: type[Pins]
    outputs: Mapping[str, Schema]
    run: Callable[[Any, Context], Awaitable[Outputs]]
    kind: Kind = "action"
    idempotent: bool = True
    """A second run with the same inputs has no further effect."""
    repeatable: Callable[[Any], bool] | None = None
    """Decides for its inputs whether a second run has no further effect, if not all inputs are alike."""

    @cached_property
    def id(self) -> str:
        return block_id(self.name)

    @cached_property
    def input_schema(self) -> Schema:
        return self.pins.model_json_schema()

    @cached_property
    def output_schema(self) -> Schema:
        return {"type": "object", "properties": dict(self.outputs), "additionalProperties": False}

    @cached_property
    def required(self) -> frozenset[str]:
        return frozenset(name for name, pin in self.pins.model_fields.items() if pin.is_required())

    def pin_schema(self, name: str) -> Schema | None:
        """Returns the schema of an input, or None if there is no such input."""
        return self.input_schema["properties"].get(name) if name in self.pins.model_fields else None

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "categories": list(self.categories),
            "inputSchema": self.input_schema,
            "outputSchema": self.output_schema,
            "idempotent": self.idempotent,
            "kind": self.kind,
        }

    def parse(self, given: Mapping[str, Any], *, strict: bool) -> Pins:
        """Returns the inputs. Raises InvalidInputs. Unless `strict`, values that came over links are converted."""
        try:
            if strict:
                return self.pins.model_validate(given, strict=True)
            return self.pins.model_validate({name: self._converted(name, value) for name, value in given.items()})
        except ValidationError as error:
            raise InvalidInputs(details_of(error)) from None

    def may_repeat(self, pins: Pins) -> bool:
        """Returns True if running again with these inputs has no further effect."""
        return self.repeatable(pins) if self.repeatable is not None else self.idempotent

    def _converted(self, name: str, value: Any) -> Any:
        schema = self.pin_schema(name)
        if schema is not None and schema.get("type") == "string" and not isinstance(value, str):
            return as_text(value)
        return value


def details_of(error: ValidationError) -> list[dict[str, str]]:
    """Returns the errors of pydantic as `[{field, message}]`, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_ERRORS]
    return [
        {"field": str(one["loc"][0]) if one["loc"] else "", "message": one["msg"]}
        for one in found
    ]  # fmt: skip


def as_text(value: Any) -> str:
    """Returns a text as it is, nothing for null, and JSON for everything else."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()

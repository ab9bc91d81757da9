"""Values that a graph keeps between its runs, for each user by itself."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from examples.agent_platform.blocks.block import Block, Context, Outputs, Pins


class GetPins(Pins):
    key: str = Field(min_length=1, max_length=200)
    default: Any = Field(None, description="The value if nothing is stored. Without it, the output missing fires")


class SetPins(Pins):
    key: str = Field(min_length=1, max_length=200)
    value: Any


async def _get(pins: GetPins, context: Context) -> Outputs:
    found = await context.services.shelf.get_value(context.user_id, context.graph_id, pins.key)
    if found is not None:
        return {"value": found[0]}
    return {"value": pins.default} if "default" in pins.model_fields_set else {"missing": pins.key}


async def _set(pins: SetPins, context: Context) -> Outputs:
    await context.services.shelf.set_value(context.user_id, context.graph_id, pins.key, pins.value)
    return {"value": pins.value}


STORE_GET = Block(
    "Get Stored Value",
    "Gets a value that an earlier run of the graph stored.",
    ("data",),
    GetPins,
    {"value": {}, "missing": {"type": "string", "description": "The key, if nothing is stored"}},
    _get,
)
STORE_SET = Block(
    "Store Value", "Stores a value for the next runs of the graph.", ("data",), SetPins, {"value": {}}, _set
)

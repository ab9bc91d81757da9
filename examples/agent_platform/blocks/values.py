"""Lists, objects, and values inside of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from examples.agent_platform.blocks.block import Block, BlockFailed, Context, Outputs, Pins

_STEP = re.compile(r"""\.([^\W\d][\w-]*)|\[(-?\d{1,9})\]|\[(?:'([^'\\]*)'|"([^"\\]*)")\]""")
_FOUND_OR_MISSING = {
    "value": {"description": "The value, if there is one"},
    "missing": {"description": "What was asked for, if there is no value"},
}


class PathPins(Pins):
    value: Any = Field(description="The JSON value")
    path: str = Field(max_length=2_000, description="Like $.items[0].name or $['a key'] (RFC 9535, one value)")


def steps_of(path: str) -> Iterator[str | int]:
    """Yields the names and indices of a path: a singular query of RFC 9535. Raises BlockFailed."""
    at = 1 if path.startswith("$") else 0
    if at == 0 and path and path[0] not in ".[":
        path = f".{path}"
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise BlockFailed(f"the path is not valid from character {at + 1} on")
        at = step.end()
        yield (
            int(step[2])
            if step[2] is not None
            else next(name for name in (step[1], step[3], step[4]) if name is not None)
        )


def _below(value: Any, step: str | int) -> tuple[Any] | None:
    """Returns the member or the item in a tuple, or None if there is none."""
    if isinstance(step, str):
        return (value[step],) if isinstance(value, dict) and step in value else None
    return (value[step],) if isinstance(value, list) and -len(value) <= step < len(value) else None


async def _get_path(pins: PathPins, _: Context) -> Outputs:
    found = (pins.value,)
    for step in steps_of(pins.path):
        below = _below(found[0], step)
        if below is None:
            return {"missing": pins.path}
        found = below
    return {"value": found[0]}


class BuildListPins(Pins):
    items: list[Any] = Field(default_factory=list, description="The items. A link fills one as items_$_NUMBER")
    append: Any = Field(None, description="One more item at the end")


class BuildObjectPins(Pins):
    members: dict[str, Any] = Field(default_factory=dict, description="The members. A link fills one as members_#_NAME")


class GetItemPins(Pins):
    items: list[Any]
    index: int = Field(0, description="From 0; -1 is the last one")


class GetMemberPins(Pins):
    object: dict[str, Any]
    key: str = Field(max_length=1_000)


async def _build_list(pins: BuildListPins, _: Context) -> Outputs:
    items = [*pins.items, pins.append] if "append" in pins.model_fields_set else pins.items
    return {"list": items, "length": len(items)}


async def _build_object(pins: BuildObjectPins, _: Context) -> Outputs:
    return {"object": pins.members}


async def _get_item(pins: GetItemPins, _: Context) -> Outputs:
    below = _below(pins.items, pins.index)
    return {"missing": pins.index} if below is None else {"value": below[0]}


async def _get_member(pins: GetMemberPins, _: Context) -> Outputs:
    below = _below(pins.object, pins.key)
    return {"missing": pins.key} if below is None else {"value": below[0]}


JSON_PATH = Block(
    "Get JSON Value", "Gets the value at a path.", ("data",), PathPins, _FOUND_OR_MISSING, _get_path
)  # fmt: skip
BUILD_LIST = Block(
    "Build List",
    "Makes a list of values.",
    ("data",),
    BuildListPins,
    {"list": {"type": "array"}, "length": {"type": "integer"}},
    _build_list,
)
BUILD_OBJECT = Block(
    "Build Object",
    "Makes an object of values.",
    ("data",),
    BuildObjectPins,
    {"object": {"type": "object"}},
    _build_object,
)
GET_ITEM = Block("Get List Item", "Gets one item of a list.", ("data",), GetItemPins, _FOUND_OR_MISSING, _get_item)
GET_MEMBER = Block(
    "Get Object Value", "Gets one member of an object.", ("data",), GetMemberPins, _FOUND_OR_MISSING, _get_member
)

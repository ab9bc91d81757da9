"""The graph of an agent: its nodes, and the links between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from examples.agent_platform.blocks.block import Block

Trigger = Literal["webhook", "schedule"]
_PART = re.compile(r"(?P<pin>.+?)(?:_#_(?P<key>.+)|_\$_(?P<index>\d{1,4}))$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pin:
    """The name of an input. `values_#_a` is the member `a` of the input `values`, `items_$_0` an item of `items`."""

    name: str
    part: str | int | None = None

    @classmethod
    def of(cls, text: str) -> Pin:
        found = _PART.match(text)
        if found is None:
            return cls(text)
        key = found["key"]
        return cls(found["pin"], key if key is not None else int(found["index"]))


@dataclass(frozen=True, slots=True)
class Link:
    source_id: str
    source_name: str
    sink_id: str
    sink_name: str


@dataclass(frozen=True)
class Node:
    id: str
    block: Block
    defaults: Mapping[str, Any]
    """The inputs that the graph fixes; links come before them."""
    name: str


@dataclass(frozen=True)
class Graph:
    """A valid graph."""

    nodes: Mapping[str, Node]
    links: tuple[Link, ...]

    @cached_property
    def links_into(self) -> Mapping[str, list[Link]]:
        into: dict[str, list[Link]] = {id: [] for id in self.nodes}
        for link in self.links:
            into[link.sink_id].append(link)
        return into

    @property
    def parents(self) -> dict[str, set[str]]:
        """The nodes that must have ended before a node starts, by the node."""
        return {id: {link.source_id for link in links} for id, links in self.links_into.items()}

    @property
    def trigger(self) -> Trigger | None:
        names = {node.block.name for node in self.nodes.values()}
        if "Schedule Trigger" in names:
            return "schedule"
        return "webhook" if names & {"Webhook Trigger", "Event Trigger"} else None

    @property
    def input_schema(self) -> dict[str, Any]:
        """The schema of the values that a run needs, as the nodes Agent Input describe them."""
        properties, required = {}, []
        for node in self._of_kind("input"):
            name = node.defaults["name"]
            properties[name] = _property(node, {"type": node.defaults.get("type", "string")})
            if "default" not in node.defaults:
                required.append(name)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    @property
    def output_schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        for node in self._of_kind("output"):
            properties.setdefault(node.defaults["name"], _property(node, self._type_of_value(node)))
        return {"type": "object", "properties": properties, "additionalProperties": False}

    def _of_kind(self, kind: str) -> Iterator[Node]:
        return (node for node in self.nodes.values() if node.block.kind == kind)

    def _type_of_value(self, node: Node) -> dict[str, Any]:
        """Returns the type of what is linked to an output, if one is known."""
        links = [link for link in self.links_into[node.id] if link.sink_name == "value"]
        types = {self._source_type(link) for link in links}
        known = types.pop() if len(types) == 1 else None
        return {"type": known} if known is not None else {}

    def _source_type(self, link: Link) -> str | None:
        source = self.nodes[link.source_id]
        if source.block.kind == "input":
            return str(source.defaults.get("type", "string"))
        found = source.block.outputs[link.source_name].get("type")
        return found if isinstance(found, str) else None


def _property(node: Node, schema: dict[str, Any]) -> dict[str, Any]:
    told = {key: node.defaults[key] for key in ("title", "description", "default") if key in node.defaults}
    return {**schema, **{key: value for key, value in told.items() if key == "default" or value is not None}}


def problems_with_input(schema: Mapping[str, Any], given: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns what is wrong with the values of a run: `[{field, message}]`."""
    properties = schema["properties"]
    problems = [{"field": name, "message": "The agent has no such input."} for name in given if name not in properties]
    problems += [{"field": name, "message": "It is missing."} for name in schema["required"] if name not in given]
    for name, value in given.items():
        wanted = properties.get(name, {}).get("type")
        if wanted is not None and not is_of_type(value, wanted):
            problems.append({"field": name, "message": f"It must be of the type {wanted}."})
    return problems


def is_of_type(value: Any, wanted: str) -> bool:
    """Returns True if a JSON value is of that type of JSON Schema."""
    match wanted:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool)

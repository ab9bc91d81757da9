"""A draft of a graph: steps become nodes and links that the platform can run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from examples.agent_generator.blocks import TIMED, block_named, chained
from examples.agent_generator.crons import cron_of
from examples.agent_generator.recipes import Recipe, recipe_for
from examples.agent_platform.blocks import BLOCKS

_NAMESPACE = uuid.UUID("5d1c6f0e-6f0b-4d9e-9f0a-6a2f3c1b7e42")
_MAX_INSTRUCTION = 20_000
_RECIPES = {"Arithmetic", "Text Template", "HTTP Request", "AI Text Generator"}
JsonObject = dict[str, Any]
End = tuple[str, str]
"""A node and the name of one of its outputs."""


def id_of(operation: str, what: str) -> str:
    """Returns an id that repeated work gives again."""
    return str(uuid.uuid5(_NAMESPACE, f"{operation} {what}"))


class Draft:
    """The nodes and links so far. `end` is the output that the next step continues from."""

    def __init__(self, operation: str, nodes: list[Any] | None = None, links: list[Any] | None = None) -> None:
        self.nodes: list[JsonObject] = nodes if nodes is not None else []
        self.links: list[JsonObject] = links if links is not None else []
        self.end: End | None = None
        self._operation = operation

    @property
    def has_inputs(self) -> bool:
        return any(node.get("block_id") == block_named("Agent Input").id for node in self.nodes)

    def add_step(self, name: str, text: str) -> None:
        """Adds what a step does, after the steps so far. `name` is the block that the step asks for."""
        text = text[:_MAX_INSTRUCTION]
        recipe = recipe_for(text) if name in _RECIPES else None
        if recipe is None and name in _RECIPES - {"AI Text Generator"}:
            recipe = Recipe(name, "add")
        if recipe is None or (recipe.block_name == "AI Text Generator" and not self._starts):
            self._add_chained(name, text)
        else:
            self._add_recipe(recipe, text)

    def add_output(self) -> None:
        """Adds the output of the agent, if there is something to give."""
        if self.end is not None:
            node = self._add("Agent Output", {"name": self._free_name("result", "output")})
            self._link(self.end, node, "value")

    def _add_chained(self, name: str, text: str) -> None:
        block = chained(name, text)
        inputs: JsonObject = {"instruction": text}
        if block.name == TIMED:
            inputs |= {"cron": cron_of(text), "timezone": "UTC"}
        node = self._add(block.name, inputs, name)
        if self.end is not None and block.kind != "trigger":
            self._link(self.end, node, "input")
        self.end = (node, "result")

    def _add_recipe(self, recipe: Recipe, text: str) -> None:
        match recipe.block_name:
            case "Arithmetic":
                self._add_arithmetic(recipe)
            case "Text Template":
                name = self._input("name", "string", title="Name")
                node = self._add("Text Template", {"template": "Hello, {{name}}!"})
                self._link(name, node, "values_#_name")
                self.end = (node, "result")
            case "HTTP Request":
                fixed = {"url": recipe.url} if recipe.url is not None else {}
                source = None if fixed else self._input("url", "string", title="Address of the page")
                node = self._add("HTTP Request", {"method": "GET", **fixed})
                if source is not None:
                    self._link(source, node, "url")
                self.end = (node, "text")
            case _:
                source = self._input("text", "string", title="Text")
                node = self._add("AI Text Generator", {"instruction": text})
                self._link(source, node, "input")
                self.end = (node, "result")

    def _add_arithmetic(self, recipe: Recipe) -> None:
        """Adds arithmetic with two inputs. After other arithmetic, its result takes the place of the first one."""
        inputs: JsonObject = {"operation": recipe.operation}
        sources: dict[str, End] = {}
        if self._ends_with_number and self.end is not None:
            fixed = {"b": recipe.second if recipe.second is not None else recipe.first}
            sources["a"] = self.end
        else:
            fixed = {"a": recipe.first, "b": recipe.second}
        for pin in ("a", "b"):
            if fixed.get(pin) is not None:
                inputs[pin] = fixed[pin]
            elif pin not in sources:
                sources[pin] = self._input(pin, "number", title=f"{'First' if pin == 'a' else 'Second'} number")
        node = self._add("Arithmetic", inputs)
        for pin, source in sources.items():
            self._link(source, node, pin)
        self.end = (node, "result")

    @property
    def _starts(self) -> bool:
        """Returns True if nothing but a trigger comes before the next step."""
        node = self._node_of(self.end)
        block = BLOCKS.get(str(node.get("block_id"))) if node is not None else None
        return node is None or (block is not None and block.kind == "trigger")

    @property
    def _ends_with_number(self) -> bool:
        node = self._node_of(self.end)
        return node is not None and node.get("block_id") == block_named("Arithmetic").id

    def _node_of(self, end: End | None) -> JsonObject | None:
        return next((node for node in self.nodes if end is not None and node.get("id") == end[0]), None)

    def _input(self, name: str, type: str, *, title: str) -> End:
        inputs = {"name": self._free_name(name, "input"), "title": title, "type": type}
        return self._add("Agent Input", inputs), "result"

    def _free_name(self, name: str, kind: str) -> str:
        """Returns the name, or another one if an input or an output of the agent has it."""
        taken = set(self._names_of(kind))
        candidates = [name, *(f"{name}{number}" for number in range(2, len(taken) + 3))]
        if name in ("a", "b"):
            candidates[:0] = "abcdefghijklmnopqrstuvwxyz"[ord(name) - ord("a") :]
        return next(candidate for candidate in candidates if candidate not in taken)

    def _names_of(self, kind: str) -> Iterator[str]:
        for node in self.nodes:
            block, inputs = BLOCKS.get(str(node.get("block_id"))), node.get("input_default")
            if block is not None and block.kind == kind and isinstance(inputs, dict):
                yield str(inputs.get("name"))

    def _add(self, block_name: str, inputs: JsonObject, name: str | None = None) -> str:
        number = len(self.nodes)
        id = id_of(self._operation, f"node {number}")
        self.nodes.append(
            {
                "id": id,
                "block_id": block_named(block_name).id,
                "input_default": inputs,
                "metadata": {"name": name or block_name, "position": {"x": 320 * number, "y": 0}},
            }
        )
        return id

    def _link(self, source: End, sink: str, pin: str) -> None:
        self.links.append(
            {
                "id": id_of(self._operation, f"link {source[0]} {sink} {pin}"),
                "source_id": source[0],
                "source_name": source[1],
                "sink_id": sink,
                "sink_name": pin,
                "is_static": False,
            }
        )

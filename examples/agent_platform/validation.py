"""Validation: turns the JSON of an agent into a graph, or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeGuard

from examples.agent_platform.blocks.block import Block, InvalidInputs
from examples.agent_platform.graph import Graph, Link, Node, Pin, is_of_type
from examples.agent_platform.options import Limits

MAX_PROBLEMS = 50
MAX_ID = 128
_LINK = ("source_id", "source_name", "sink_id", "sink_name")


@dataclass(frozen=True, slots=True)
class GraphProblem:
    """A sentence about a node, or about the whole graph."""

    message: str
    node_id: str | None = None

    def as_json(self) -> dict[str, str]:
        return {"message": self.message} if self.node_id is None else {"node_id": self.node_id, "message": self.message}


class InvalidGraph(Exception):
    """The graph cannot run."""

    def __init__(self, problems: list[GraphProblem]) -> None:
        super().__init__(" ".join(problem.message for problem in problems[:3]))
        self.problems = problems


def parse_graph(document: Any, blocks: Mapping[str, Block], limits: Limits) -> Graph:
    """Returns the graph of an agent's JSON. Raises InvalidGraph with its problems."""
    draft = _Draft(blocks)
    nodes = draft.read_nodes(_members(draft, document, "nodes", limits.nodes))
    links = draft.read_links(_members(draft, document, "links", limits.links), nodes)
    draft.finish()
    graph = Graph(nodes, tuple(links))
    for node in nodes.values():
        draft.check_inputs(node, graph.links_into[node.id])
    draft.check_ends(graph)
    draft.check_cycles(graph)
    draft.finish()
    return graph


def _members(draft: _Draft, document: Any, name: str, most: int) -> list[Any]:
    members = document.get(name) if isinstance(document, dict) else None
    if not isinstance(members, list):
        draft.add(f"The agent has no list of {name}.")
        return []
    if len(members) > most:
        draft.add(f"The agent has {len(members)} {name}; at most {most} can run.")
        return []
    return members


class _Draft:
    """The problems that were found so far."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        self._blocks = blocks
        self._problems: list[GraphProblem] = []

    def add(self, message: str, node_id: str | None = None) -> None:
        self._problems.append(GraphProblem(message, node_id))

    def finish(self) -> None:
        """Raises InvalidGraph if there are problems."""
        if self._problems:
            raise InvalidGraph(self._problems[:MAX_PROBLEMS])

    def read_nodes(self, members: list[Any]) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for place, member in enumerate(members, 1):
            id = member.get("id") if isinstance(member, dict) else None
            if not _is_id(id):
                self.add(f"The node at place {place} has no id.")
            elif id in nodes:
                self.add("Two nodes have this id.", id)
            elif (node := self._node(id, member)) is not None:
                nodes[id] = node
        if not members and not self._problems:
            self.add("The agent has no nodes.")
        return nodes

    def _node(self, id: str, member: dict[str, Any]) -> Node | None:
        block_id = member.get("block_id")
        block = self._blocks.get(block_id) if isinstance(block_id, str) else None
        defaults = member.get("input_default")
        if block is None:
            self.add("The platform has no block with this block_id.", id)
            return None
        if defaults is not None and not isinstance(defaults, dict):
            self.add("Its input_default is not an object.", id)
            return None
        metadata = member.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return Node(id, block, defaults or {}, name if isinstance(name, str) and name.strip() else block.name)

    def read_links(self, members: list[Any], nodes: Mapping[str, Node]) -> list[Link]:
        links: list[Link] = []
        ids: set[str] = set()
        for place, member in enumerate(members, 1):
            given = member if isinstance(member, dict) else {}
            id, ends = given.get("id"), [given.get(end) for end in _LINK]
            if not all(isinstance(end, str) and end for end in ends):
                self.add(f"The link at place {place} does not name {', '.join(_LINK)}.")
                continue
            if isinstance(id, str) and id in ids:
                self.add(f"The link at place {place} has the id of another link.")
            ids |= {id} if isinstance(id, str) else set()
            link = Link(*ends)  # type: ignore[arg-type]
            if link.source_id in nodes and link.sink_id in nodes:
                self._check_pins(link, nodes)
                links.append(link)
            elif not self._problems:
                self.add(f"The link at place {place} names a node that the agent does not have.")
        return links

    def _check_pins(self, link: Link, nodes: Mapping[str, Node]) -> None:
        source, sink, pin = nodes[link.source_id], nodes[link.sink_id], Pin.of(link.sink_name)
        if link.source_name not in source.block.outputs:
            self.add(f"{source.block.name} has no output “{link.source_name}”.", source.id)
        schema = sink.block.pin_schema(pin.name)
        wanted = {int: "array", str: "object"}.get(type(pin.part))
        if schema is None or (wanted is not None and schema.get("type", wanted) != wanted):
            self.add(f"{sink.block.name} has no input “{link.sink_name}”.", sink.id)

    def check_inputs(self, node: Node, links: list[Link]) -> None:
        linked = {Pin.of(link.sink_name).name for link in links}
        for name in sorted(node.block.required - linked - node.defaults.keys()):
            self.add(f"The input “{name}” of {node.block.name} has neither a link nor a value.", node.id)
        try:
            node.block.parse(node.defaults, strict=True)
        except InvalidInputs as error:
            for detail in error.details:
                if detail["field"] in node.defaults:
                    self.add(f"The input “{detail['field']}” of {node.block.name}: {detail['message']}.", node.id)

    def check_ends(self, graph: Graph) -> None:
        """Checks that the names of inputs are fixed and differ, that defaults have their types, and outputs names."""
        names: set[str] = set()
        for node in graph.nodes.values():
            if node.block.kind not in ("input", "output"):
                continue
            name, default = node.defaults.get("name"), node.defaults.get("default")
            fixed = {Pin.of(link.sink_name).name for link in graph.links_into[node.id]} - {"value"}
            if fixed or not isinstance(name, str):
                self.add(f"{node.block.name} needs fixed values, only its value may be linked.", node.id)
            elif node.block.kind == "input" and name in names:
                self.add(f"Two inputs of the agent have the name “{name}”.", node.id)
            if node.block.kind == "input":
                names |= {name} if isinstance(name, str) else set()
                wanted = node.defaults.get("type", "string")
                if default is not None and isinstance(wanted, str) and not is_of_type(default, wanted):
                    self.add(f"Its default must be of the type {wanted}.", node.id)

    def check_cycles(self, graph: Graph) -> None:
        try:
            TopologicalSorter(graph.parents).prepare()
        except CycleError as error:
            self.add("The links form a circle, so no node of it could start.", error.args[1][0])


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable()

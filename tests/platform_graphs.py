"""Graphs for the tests of the agent platform of examples/."""

from __future__ import annotations

from typing import Any

from examples.agent_platform.blocks.block import block_id


def node(id: str, block: str, **inputs: Any) -> dict[str, Any]:
    return {"id": id, "block_id": block_id(block), "input_default": inputs, "metadata": {"name": id}}


def link(arrow: str) -> dict[str, Any]:
    """Returns the link that `sum.result -> out.value` names."""
    source, sink = (end.strip().split(".", 1) for end in arrow.split("->"))
    return {
        "id": arrow, "source_id": source[0], "source_name": source[1], "sink_id": sink[0], "sink_name": sink[1],
        "is_static": False,
    }  # fmt: skip


def graph(nodes: list[dict[str, Any]], *arrows: str) -> dict[str, Any]:
    return {
        "id": "g", "version": 1, "is_active": True, "name": "Test", "description": "", "nodes": nodes,
        "links": [link(arrow) for arrow in arrows],
    }  # fmt: skip


def adder() -> dict[str, Any]:
    """An agent that adds two numbers."""
    return graph(
        [
            node("a", "Agent Input", name="a", type="number"),
            node("b", "Agent Input", name="b", type="number", default=1),
            node("sum", "Arithmetic", operation="add"),
            node("out", "Agent Output", name="result"),
        ],
        "a.result -> sum.a", "b.result -> sum.b", "sum.result -> out.value",
    )  # fmt: skip


def brancher() -> dict[str, Any]:
    """An agent that says whether a number is large."""
    return graph(
        [
            node("n", "Agent Input", name="n", type="number"),
            node("if", "Condition", operator=">", right=10),
            node("large", "Text Template", template="{{n}} is large"),
            node("small", "Text Template", template="{{n}} is small"),
            node("out", "Agent Output", name="words"),
        ],
        "n.result -> if.left", "if.true -> large.values_#_n", "if.false -> small.values_#_n",
        "large.result -> out.value", "small.result -> out.value",
    )  # fmt: skip

"""Builds agents from steps, and changes agents.

An agent is `{id, version, is_active, name, description, nodes, links}`. Its ids are derived from the operation's id, so
that repeated work makes the same agent.
"""

from __future__ import annotations

import copy
import itertools
import re
import uuid
from collections.abc import Iterable
from typing import Any

from examples.agent_generator.blocks import MANUAL, NAMESPACE, block_for, block_id
from examples.agent_generator.directives import without_lines

_NAMED = re.compile(r"\b(?:called?|named?|rename(?: it)? to|call it)\s+[\"'“]?([\w][\w -]{0,60}[\w])", re.IGNORECASE)


def build_agent(instructions: Any, operation: str) -> dict[str, Any]:
    """Builds an agent with one node per step, linked in order."""
    steps = list(_steps_in(instructions))
    nodes = [_node(operation, number, *step) for number, step in enumerate(steps)]
    acts = [text for name, text in steps if not name.endswith("Trigger")] or [steps[0][1]]
    return {
        "id": _id(operation, "agent"),
        "version": 1,
        "is_active": True,
        "name": _title(acts[0]),
        "description": ". ".join(text[:1].upper() + text[1:] for text in acts)[:1_000],
        "nodes": nodes,
        "links": [_link(operation, one, other) for one, other in itertools.pairwise(nodes)],
    }


def update_agent(agent: dict[str, Any], request: str, operation: str) -> dict[str, Any]:
    """Returns a changed copy with the same id: one more node at the end, and a new name if the request gives one."""
    changed, text = copy.deepcopy(agent), without_lines(request)
    nodes = changed["nodes"] = [node for node in _listed(changed.get("nodes")) if isinstance(node, dict)]
    links = changed["links"] = _listed(changed.get("links"))
    nodes.append(_node(operation, len(nodes), block_for(text), text))
    if len(nodes) > 1 and isinstance(nodes[-2].get("id"), str):
        links.append(_link(operation, nodes[-2], nodes[-1]))
    version = changed.get("version")
    changed["version"] = version + 1 if isinstance(version, int) else 1
    changed.setdefault("id", _id(operation, "agent"))
    changed.setdefault("is_active", True)
    changed.setdefault("description", text[:1_000])
    if named := _NAMED.search(text):
        changed["name"] = named[1]
    changed.setdefault("name", _title(text))
    return changed


def modify_template(template: dict[str, Any], request: str, context: str | None, operation: str) -> dict[str, Any]:
    """Returns a new agent made from a template: a changed copy with a new id."""
    agent = update_agent({**template, "id": _id(operation, "agent"), "version": 0}, request, operation)
    if context:
        agent["description"] = f"{agent['description']} ({without_lines(context)})"[:1_000]
    return agent


def _steps_in(instructions: Any) -> Iterable[tuple[str, str]]:
    """Yields the block and the text of each step. Accepts a list, a dict with `steps`, or a text."""
    given = instructions.get("steps", instructions) if isinstance(instructions, dict) else instructions
    found = False
    for step in given if isinstance(given, list) else [given]:
        if isinstance(step, dict) and step.get("action") == "note":
            continue
        text = without_lines(str(step.get("description") or step) if isinstance(step, dict) else str(step))
        name = step.get("block_name") if isinstance(step, dict) else None
        if text:
            found = True
            yield (name if isinstance(name, str) and name else block_for(text)), text
    if not found:
        yield MANUAL, "started by hand"


def _node(operation: str, number: int, block_name: str, text: str) -> dict[str, Any]:
    return {
        "id": _id(operation, f"node {number}"),
        "block_id": block_id(block_name),
        "input_default": {"instruction": text},
        "metadata": {"name": block_name, "position": {"x": 320 * number, "y": 0}},
    }


def _link(operation: str, source: dict[str, Any], sink: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": _id(operation, f"link {source['id']} {sink['id']}"),
        "source_id": source["id"],
        "source_name": "result",
        "sink_id": sink["id"],
        "sink_name": "input",
        "is_static": False,
    }


def _id(operation: str, what: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{operation} {what}"))


def _title(text: str) -> str:
    words = re.findall(r"[^\W_][\w'-]*", text)[:6]
    return " ".join(words).capitalize() or "New agent"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []

"""Builds agents from steps, and changes agents.

An agent is `{id, version, is_active, name, description, nodes, links}`. Its ids are derived from the operation's id, so
that repeated work makes the same agent.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

from examples.agent_generator.blocks import MANUAL, block_for
from examples.agent_generator.directives import without_lines
from examples.agent_generator.drafts import Draft, End, id_of
from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.options import Limits
from examples.agent_platform.validation import InvalidGraph, parse_graph

_NAMED = re.compile(r"\b(?:called?|named?|rename(?: it)? to|call it)\s+[\"'“]?([\w][\w -]{0,60}[\w])", re.IGNORECASE)
_INTRODUCTION = re.compile(
    r"^(?:please )?(?:(?:make|create|build|write)(?: me)? )?(?:an? |the )?(?:new )?(?:agent|bot|assistant)"
    r" (?:that|which|to) ",
    re.IGNORECASE,
)
_LIMITS = Limits()


def build_agent(instructions: Any, operation: str) -> dict[str, Any]:
    """Builds an agent that runs its steps in order. Raises InvalidGraph if it cannot run."""
    steps = list(_steps_in(instructions))
    acts = [text for name, text in steps if not name.endswith("Trigger")] or [steps[0][1]]
    draft = Draft(operation)
    for name, text in steps:
        draft.add_step(name, text)
    if draft.has_inputs:  # a person gives the inputs, so nothing else needs to start it by hand
        draft = Draft(operation)
        for name, text in steps:
            if name != MANUAL:
                draft.add_step(name, text)
    if any(not name.endswith("Trigger") for name, _ in steps):
        draft.add_output()
    graph = parse_graph({"nodes": draft.nodes, "links": draft.links}, BLOCKS, _LIMITS)
    return {
        "id": id_of(operation, "agent"),
        "version": 1,
        "is_active": True,
        "name": _title(acts[0]),
        "description": ". ".join(text[:1].upper() + text[1:] for text in acts)[:1_000],
        "nodes": draft.nodes,
        "links": draft.links,
        "input_schema": graph.input_schema,
        "output_schema": graph.output_schema,
    }


def update_agent(agent: dict[str, Any], request: str, operation: str) -> dict[str, Any]:
    """Returns a changed copy with the same id: one more step before its output, a new name if the request has one.

    Raises InvalidGraph if the change keeps an agent that could run from running.
    """
    changed, text = copy.deepcopy(agent), without_lines(request)
    could_run = _can_run(changed)
    nodes = changed["nodes"] = [node for node in _listed(changed.get("nodes")) if isinstance(node, dict)]
    links = changed["links"] = _listed(changed.get("links"))
    draft = Draft(operation, nodes, links)
    outgoing = _outgoing(nodes, links) if could_run else None
    draft.end = (outgoing["source_id"], outgoing["source_name"]) if outgoing is not None else _last_end(nodes)
    draft.add_step(block_for(text), text)
    if outgoing is not None and draft.end is not None:
        outgoing["source_id"], outgoing["source_name"] = draft.end
    version = changed.get("version")
    changed["version"] = version + 1 if isinstance(version, int) else 1
    changed.setdefault("id", id_of(operation, "agent"))
    changed.setdefault("is_active", True)
    changed.setdefault("description", text[:1_000])
    if named := _NAMED.search(text):
        changed["name"] = named[1]
    changed.setdefault("name", _title(text))
    if could_run:
        graph = parse_graph(changed, BLOCKS, _LIMITS)
        changed |= {"input_schema": graph.input_schema, "output_schema": graph.output_schema}
    return changed


def modify_template(template: dict[str, Any], request: str, context: str | None, operation: str) -> dict[str, Any]:
    """Returns a new agent made from a template: a changed copy with a new id. Raises InvalidGraph like update_agent."""
    agent = update_agent({**template, "id": id_of(operation, "agent"), "version": 0}, request, operation)
    if context:
        agent["description"] = f"{agent['description']} ({without_lines(context)})"[:1_000]
    return agent


def _can_run(agent: dict[str, Any]) -> bool:
    try:
        parse_graph(agent, BLOCKS, _LIMITS)
    except InvalidGraph:
        return False
    return True


def _outgoing(nodes: list[Any], links: list[Any]) -> dict[str, Any] | None:
    """Returns the last link into an output of an agent that can run."""
    outputs = {node["id"] for node in nodes if BLOCKS[node["block_id"]].kind == "output"}
    return next((link for link in reversed(links) if link["sink_id"] in outputs), None)


def _last_end(nodes: list[Any]) -> End | None:
    """Returns the output of the last node."""
    last = nodes[-1] if nodes else {}
    id, block = last.get("id"), BLOCKS.get(str(last.get("block_id")))
    if not isinstance(id, str) or not id:
        return None
    return id, "result" if block is None or "result" in block.outputs else next(iter(block.outputs))


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


def _title(text: str) -> str:
    words = re.findall(r"[^\W_][\w'-]*", _INTRODUCTION.sub("", text))[:6]
    return " ".join(words).capitalize() or "New agent"


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []

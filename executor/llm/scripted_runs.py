"""The scripted model's runs: “Run it with 2 and 3”, “Run the agent ID with {"a": 2}”, “Run the block ID with {"a": 2}”.

Values without names are those of the agent's inputs in their order. To learn it, the model calls the tool without them
first, and again when that has answered with `setup_requirements`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import orjson

from backend.chat.models import Json, NewMessage, ToolResultPart

RUN_AGENT, RUN_BLOCK = "run_agent", "run_block"
_REQUEST = re.compile(
    r"(?:please )?run (?:it|this agent|the agent(?: (?P<agent_id>(?!with\b)\S+?))?)(?: with (?P<values>.+?))?\.?",
    re.IGNORECASE | re.DOTALL,
)
_BLOCK = re.compile(r"(?:please )?run the block (?P<block_id>\S+) with (?P<values>\{.*\})", re.IGNORECASE | re.DOTALL)
_BETWEEN = re.compile(r",\s*(?:and\s+)?|\s+and\s+")


def requested_run(
    asked: str, messages: Sequence[NewMessage], since: Sequence[NewMessage], tools: Container[str]
) -> str | None:
    """Returns the next call for a message that wants an agent to run, in the form `/tool` takes.

    `since` are the messages after it. Returns None if it does not want that, or if nothing is left to be called.
    """
    if not since and RUN_BLOCK in tools and (block := _BLOCK.fullmatch(asked.strip())) is not None:
        inputs = _object(block["values"]) or {}
        return f"{RUN_BLOCK} {orjson.dumps({'block_id': block['block_id'], 'inputs': inputs}).decode()}"
    found = _REQUEST.fullmatch(asked.strip()) if RUN_AGENT in tools else None
    if found is None:
        return None
    agent_id, values = found["agent_id"] or _newest_agent(messages), found["values"]
    results = [part for message in since for part in message.parts if isinstance(part, ToolResultPart)]
    if agent_id is None or len(results) > 1:
        return None
    named = _object(values)
    if not results:
        return _call(agent_id, named or {})
    setup = results[0].output.get("setup_info") if isinstance(results[0].output, dict) else None
    if named is not None or values is None or not isinstance(setup, dict):
        return None
    return _call(agent_id, _by_name(values, setup))


def _call(agent_id: str, inputs: Mapping[str, Json]) -> str:
    return f"{RUN_AGENT} {orjson.dumps({'agent_id': agent_id, **({'inputs': inputs} if inputs else {})}).decode()}"


def _newest_agent(messages: Sequence[NewMessage]) -> str | None:
    """Returns the id of the agent of which a tool has told last, or None."""
    for output in _outputs(messages):
        match output:
            case {"type": "agent_saved", "library_agent_id": str(agent_id)}:
                return agent_id
            case {"type": "agent_output" | "execution_started", "agent_id": str(agent_id)}:
                return agent_id
    return None


def _outputs(messages: Sequence[NewMessage]) -> Iterator[Json]:
    for message in reversed(messages):
        for part in reversed(message.parts):
            if isinstance(part, ToolResultPart):
                yield part.output


def _object(values: str | None) -> dict[str, Any] | None:
    value = None if values is None else _value(values)
    return value if isinstance(value, dict) else None


def _by_name(values: str, setup: Mapping[str, Any]) -> dict[str, Json]:
    fields = setup.get("input_schema", {}).get("properties", {})
    names = setup.get("property_order") or list(fields)
    given = [one for one in _BETWEEN.split(values) if one]
    return {name: _fitting(fields.get(name), value) for name, value in zip(names, given, strict=False)}


def _fitting(field: Json, text: str) -> Json:
    kind = field.get("type") if isinstance(field, dict) else None
    return text.strip("\"'“”") if kind == "string" else _value(text)


def _value(text: str) -> Json:
    try:
        value: Json = orjson.loads(text)
    except ValueError:
        return text
    return value

"""The scripted model's runs: “Run it with 2 and 3”, “Run the agent ID with {"a": 2}”, “Run the block ID with {"a": 2}”.

“Run it every morning at 8” makes a schedule. A schedule without values has those of the last run. Values without names
are given to the agent's inputs in their order. The model reads that order in the conversation, where the agent was
saved or a call was answered with `setup_requirements`. If it finds neither, it first calls the tool without values.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from backend.chat.models import Json, NewMessage, ToolCallPart, ToolResultPart
from executor.llm.times_in_words import TIMES, cron_of

RUN_AGENT, RUN_BLOCK = "run_agent", "run_block"
_REQUEST = re.compile(
    r"(?:please )?(?:run|schedule) (?:it|this agent|the agent(?: (?P<agent_id>(?!with\b|every\b)\S+?))?)"
    rf"(?: with (?P<values>.+?))?(?:,? (?P<when>{TIMES}.*?)(?: in (?P<zone>UTC|[A-Z]\w+(?:/\w+)+))?)?\.?",
    re.IGNORECASE | re.DOTALL,
)
_BLOCK = re.compile(r"(?:please )?run the block (?P<block_id>\S+) with (?P<values>\{.*\})", re.IGNORECASE | re.DOTALL)
_BETWEEN = re.compile(r",\s*(?:and\s+)?|\s+and\s+")
_Schema = Mapping[str, Any]


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
    before = messages[: len(messages) - len(since)]
    agent_id, values = found["agent_id"] or _newest_agent(before), found["values"]
    results = [part for message in since for part in message.parts if isinstance(part, ToolResultPart)]
    if agent_id is None or len(results) > 1:
        return None
    last = _last_call(before, agent_id)
    schedule = _schedule(found["when"], found["zone"]) if found["when"] else last.waiting_schedule
    named = _object(values)
    if results:
        setup = _setup_of(results[0].output)
        if named is not None or values is None or setup is None:
            return None
        return _call(agent_id, _by_name(values, setup), schedule)
    if values is None:
        return _call(agent_id, last.inputs if found["when"] else {}, schedule)
    known = _known_inputs(before, agent_id) if named is None else None
    return _call(agent_id, named or (_by_name(values, known) if known is not None else {}), schedule)


def _call(agent_id: str, inputs: Mapping[str, Json], schedule: Mapping[str, Json] | None) -> str:
    more = {"inputs": inputs, "schedule": schedule}
    return f"{RUN_AGENT} {orjson.dumps({'agent_id': agent_id} | {k: v for k, v in more.items() if v}).decode()}"


def _schedule(when: str, zone: str | None) -> dict[str, Json]:
    return {"cron": cron_of(when), **({} if zone is None else {"timezone": zone})}


def _newest_agent(messages: Sequence[NewMessage]) -> str | None:
    """Returns the id of the agent in the newest result of a tool that names one, or None."""
    for result in _results(messages):
        match result.output:
            case {"type": "agent_saved", "library_agent_id": str(agent_id)}:
                return agent_id
            case {"type": "agent_output" | "execution_started", "agent_id": str(agent_id)}:
                return agent_id
    return None


def _known_inputs(messages: Sequence[NewMessage], agent_id: str) -> _Schema | None:
    """Returns `input_schema` and `property_order` of the agent, from the newest result that has them, or None."""
    for result in _results(messages):
        output: dict[str, Any] = result.output if isinstance(result.output, dict) else {}
        if output.get("library_agent_id") == agent_id and isinstance(output.get("input_schema"), dict):
            return output
        setup = _setup_of(result.output)
        if setup is not None and setup.get("id") == agent_id:
            return setup
    return None


@dataclass(frozen=True, slots=True)
class _LastCall:
    """The last run of an agent. `waiting_schedule` is its schedule if it was answered with `setup_requirements`."""

    inputs: Mapping[str, Json]
    waiting_schedule: Mapping[str, Json] | None


def _last_call(messages: Sequence[NewMessage], agent_id: str) -> _LastCall:
    results = {result.tool_call_id: result.output for result in _results(messages)}
    for message in reversed(messages):
        for part in reversed(message.parts):
            if isinstance(part, ToolCallPart) and part.tool_name == RUN_AGENT and isinstance(part.input, dict):
                given = part.input
                if given.get("agent_id") == agent_id:
                    waits = _setup_of(results.get(part.tool_call_id)) is not None
                    return _LastCall(given.get("inputs") or {}, given.get("schedule") if waits else None)
    return _LastCall({}, None)


def _results(messages: Sequence[NewMessage]) -> Iterator[ToolResultPart]:
    """Yields the results of tools, the newest first."""
    for message in reversed(messages):
        for part in reversed(message.parts):
            if isinstance(part, ToolResultPart):
                yield part


def _setup_of(output: Json) -> dict[str, Any] | None:
    setup = output.get("setup_info") if isinstance(output, dict) else None
    return setup if isinstance(setup, dict) else None


def _object(values: str | None) -> dict[str, Any] | None:
    value = None if values is None else _value(values)
    return value if isinstance(value, dict) else None


def _by_name(values: str, inputs: _Schema) -> dict[str, Json]:
    fields = inputs.get("input_schema", {}).get("properties", {})
    names = inputs.get("property_order") or list(fields)
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

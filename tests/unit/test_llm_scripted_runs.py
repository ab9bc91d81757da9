"""Tests of what the scripted model calls when it is asked to run an agent, and of its times in words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from backend.chat.models import Json, NewMessage, Role, TextPart, ToolCallPart, ToolResultPart
from executor.llm.scripted_runs import requested_run
from executor.llm.times_in_words import cron_of

TOOLS = {"run_agent"}
SCHEMA: Json = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string"}}}
SAVED = {"type": "agent_saved", "library_agent_id": "adder", "input_schema": SCHEMA, "property_order": ["a", "b"]}
SETUP = {"type": "setup_requirements", "setup_info": {"id": "adder", "input_schema": SCHEMA, "property_order": ["a"]}}


def result(output: Json, tool: str = "create_agent", given: Json = None, id: str = "c1") -> list[NewMessage]:
    return [
        NewMessage(Role.ASSISTANT, (ToolCallPart(id, tool, given or {}),)),
        NewMessage(Role.TOOL, (ToolResultPart(id, tool, output),)),
    ]


def asked(text: str, *before: NewMessage, since: list[NewMessage] | None = None) -> dict[str, Any] | None:
    """Returns the input of the call that the model makes for `text`, or None."""
    since = since or []
    messages = [*before, NewMessage(Role.USER, (TextPart(text),)), *since]
    call = requested_run(text, messages, since, TOOLS)
    if call is None:
        return None
    name, _, arguments = call.partition(" ")
    assert name == "run_agent"
    found: dict[str, Any] = orjson.loads(arguments)
    return found


def test_values_get_the_names_that_the_saved_agent_told() -> None:
    saved = result(SAVED)
    assert asked("Run it with 2 and 3", *saved) == {"agent_id": "adder", "inputs": {"a": 2, "b": "3"}}
    assert asked("Run it", *saved) == {"agent_id": "adder"}
    assert asked("Run it with 2 and 3", *saved, since=result(SETUP)) == {"agent_id": "adder", "inputs": {"a": 2}}
    assert asked("Run it with 2 and 3", *saved, since=result({"type": "agent_output"})) is None


def test_values_without_known_names_are_sent_when_the_tool_has_told_them() -> None:
    unknown = result({"type": "agent_saved", "library_agent_id": "adder"})
    assert asked("Run it with 2 and 3", *unknown) == {"agent_id": "adder"}
    assert asked("Run it with 2 and 3", *unknown, *result(SETUP)) == {"agent_id": "adder", "inputs": {"a": 2}}


def test_a_time_makes_a_schedule_with_the_last_inputs() -> None:
    before = [*result(SAVED), *result({"type": "agent_output"}, "run_agent", {"agent_id": "adder", "inputs": {"a": 2}})]
    assert asked("Run it every morning at 8", *before) == {
        "agent_id": "adder",
        "inputs": {"a": 2},
        "schedule": {"cron": "0 8 * * *"},
    }
    assert asked("Please run the agent adder with 4 and x every Monday at 9:30 in Europe/Berlin.", *before) == {
        "agent_id": "adder",
        "inputs": {"a": 4, "b": "x"},
        "schedule": {"cron": "30 9 * * 1", "timezone": "Europe/Berlin"},
    }


def test_the_form_of_a_schedule_without_inputs_makes_the_schedule() -> None:
    first = asked("Run it every hour", *result(SAVED))
    assert first == {"agent_id": "adder", "schedule": {"cron": "0 * * * *"}}
    before = [*result(SAVED), *result(SETUP, "run_agent", first, "c2")]
    given = {"agent_id": "adder", "inputs": {"a": 1}}
    assert asked('Run the agent adder with {"a": 1}', *before) == {**given, "schedule": {"cron": "0 * * * *"}}
    made = result({"type": "agent_schedules"}, "run_agent", {**given, "schedule": {"cron": "0 * * * *"}}, "c3")
    assert asked('Run the agent adder with {"a": 1}', *before, *made) == given


@pytest.mark.parametrize(
    ("words", "cron"),
    [
        ("every morning at 8", "0 8 * * *"),
        ("every morning", "0 8 * * *"),
        ("every evening at 8", "0 20 * * *"),
        ("every afternoon at 12:30", "30 12 * * *"),
        ("every night at 11", "0 23 * * *"),
        ("every night at 2", "0 2 * * *"),
        ("every evening at 6:15 pm", "15 18 * * *"),
        ("daily at 12 am", "0 0 * * *"),
        ("every weekday at 7", "0 7 * * 1-5"),
        ("each Sunday and Wednesday at noon", "0 12 * * 0,3"),
        ("every 15 minutes", "*/15 * * * *"),
        ("every minute", "* * * * *"),
        ("every 2 hours", "0 */2 * * *"),
        ("weekly", "0 8 * * 1"),
        ("every first Monday of the month at 9", "0 9 * * 1#1"),
        ("each last friday at 5 pm", "0 17 * * 5L"),
        ("every month", "0 8 1 * *"),
        ("every month on the 15th at 10", "0 10 15 * *"),
        ("monthly on the last day at 18:00", "0 18 L * *"),
        ("every day at 99", "0 8 * * *"),
    ],
)
def test_times_in_words_become_cron_expressions(words: str, cron: str) -> None:
    assert cron_of(words) == cron

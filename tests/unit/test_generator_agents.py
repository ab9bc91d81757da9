"""Tests that the agents of the generator of examples/ run on the platform of examples/."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.agent_generator.agents import build_agent, modify_template, update_agent
from examples.agent_generator.blocks import SCHEDULE
from examples.agent_generator.crons import cron_of
from examples.agent_generator.goals import decompose
from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.blocks.block import Answer, Context, Services
from examples.agent_platform.execution import NodeResult, Outcome, execute
from examples.agent_platform.model import ScriptedModel
from examples.agent_platform.options import Limits
from examples.agent_platform.validation import parse_graph
from tests import ROOT

_PHRASES = (
    "every morning at 8", "adds two numbers", "multiplies the result by 3", "mail me", "fetch the page", "summarise it",
    "search the web", "greets a name", "when a mail comes", "and", ",", "then", "save it", "an agent that", "hourly",
)  # fmt: skip


class Record:
    async def begin(self, node_id: str) -> None: ...
    async def end(self, node_id: str, result: NodeResult) -> None: ...


class OnePage:
    """A web in which every address has the same page."""

    async def send(self, method: str, url: str, headers: Any, body: bytes | None) -> Answer:
        return Answer(200, "text/html", f"<p>The page {url}</p>")


def made(description: str) -> dict[str, Any]:
    goal = decompose(description, None, [])
    assert goal["type"] == "instructions", goal
    return build_agent(goal, "o")


async def ran(agent: dict[str, Any], **node_input: Any) -> Outcome:
    graph = parse_graph(agent, BLOCKS, Limits())
    services = Services(None, OnePage(), ScriptedModel(), lambda: datetime.now(UTC))  # type: ignore[arg-type]
    context = Context("user", agent["id"], "run", services, node_input)
    return await execute(graph, context, Record(), Limits(), {})


def names(agent: dict[str, Any]) -> list[str]:
    return [node["metadata"]["name"] for node in agent["nodes"]]


@pytest.mark.parametrize(
    ("description", "given", "result"),
    [
        ("Create an agent that adds two numbers", {"a": 2, "b": 40}, 42),
        ("an agent that multiplies two numbers", {"a": 2, "b": 40}, 80),
        ("takes two numbers and returns their sum", {"a": 2, "b": 3}, 5),
        ("an agent that calculates the product of two numbers", {"a": 2, "b": 3}, 6),
        ("adds two numbers and multiplies the result by 3", {"a": 1, "b": 1}, 6),
        ("subtract 5 from a number", {"a": 7}, 2),
        ("divide 10 by a number", {"b": 4}, 2.5),
        ("adds 5 and 7.5", {}, 12.5),
        ("an agent that greets a name", {"name": "Ada"}, "Hello, Ada!"),
        ("An agent that takes a name and says hello", {"name": "Ada"}, "Hello, Ada!"),
        (
            "fetches a page and summarises it",
            {"url": "http://x.test"},
            "Scripted answer (no model is configured) to “summarises it”: The page http://x.test",
        ),
        (
            "Fetch https://x.test/a?b=1, translate it",
            {},
            "Scripted answer (no model is configured) to “translate it”: The page https://x.test/a?b=1",
        ),
        (
            "adds two numbers and mails me the sum",
            {"a": 1, "b": 1},
            "Simulated Send Email: mails me the sum. Nothing was done.\n2",
        ),
    ],
)
async def test_an_agent_does_what_its_description_says(description: str, given: dict[str, Any], result: Any) -> None:
    agent = made(description)
    assert set(parse_graph(agent, BLOCKS, Limits()).input_schema["required"]) == set(given)
    assert await ran(agent, **given) == Outcome({"result": [result]})


def test_an_agent_that_adds_has_two_inputs_arithmetic_and_an_output() -> None:
    agent = made("an agent that adds two numbers")
    assert names(agent) == ["Agent Input", "Agent Input", "Arithmetic", "Agent Output"]
    assert agent["name"] == "Adds two numbers"


def test_the_suggestions_of_the_page_make_agents_that_run_at_once() -> None:
    page = (ROOT / "web/src/conversation/Conversation.tsx").read_text()
    suggested = re.findall(r'^  "(Create an agent that .+)",$', page, re.MULTILINE)
    assert suggested
    for description in suggested:
        assert parse_graph(made(description), BLOCKS, Limits()).trigger is None


def test_a_time_becomes_a_schedule_trigger() -> None:
    agent = made("Every weekday at 7:30 pm search the web for news, summarize them and mail me the summary")
    trigger = agent["nodes"][0]["input_default"]
    assert names(agent) == ["Schedule Trigger", "Web Search", "AI Text Generator", "Send Email", "Agent Output"]
    assert (trigger["cron"], trigger["timezone"]) == ("30 19 * * 1-5", "UTC")
    assert parse_graph(agent, BLOCKS, Limits()).trigger == "schedule"


@pytest.mark.parametrize(
    ("words", "cron"),
    [
        ("every morning at 8", "0 8 * * *"),
        ("every morning", "0 8 * * *"),
        ("every day at 6 pm", "0 18 * * *"),
        ("daily at 12:15am", "15 0 * * *"),
        ("every evening at 8", "0 20 * * *"),
        ("every night at 11", "0 23 * * *"),
        ("every night at 2", "0 2 * * *"),
        ("daily at 3 please", "0 3 * * *"),
        ("every evening", "0 18 * * *"),
        ("at night", "0 22 * * *"),
        ("every 15 minutes", "*/15 * * * *"),
        ("every minute", "* * * * *"),
        ("hourly", "0 * * * *"),
        ("every 2 hours", "0 */2 * * *"),
        ("every monday at 9", "0 9 * * 1"),
        ("on sundays", "0 8 * * 0"),
        ("weekly", "0 8 * * 1"),
        ("every first monday at 9", "0 9 * * 1#1"),
        ("every last friday", "0 8 * * 5L"),
        ("every month", "0 8 1 * *"),
        ("yearly", "0 8 1 1 *"),
        ("every other day", "0 8 */2 * *"),
        ("at 25:70", "0 8 * * *"),
    ],
)
def test_times_in_words_become_cron_expressions(words: str, cron: str) -> None:
    assert cron_of(words) == cron
    found = SCHEDULE.search(f"Please {words}, mail me")
    assert found is not None
    assert cron_of(found[0]) == cron


@given(words=st.text("every oth dayminutsh0123456789:. at", max_size=30))
def test_every_time_in_words_becomes_a_valid_cron_expression(words: str) -> None:
    next(CronSim(cron_of(words), datetime(2026, 1, 1, tzinfo=UTC)))


@settings(max_examples=80)
@given(
    description=st.lists(st.sampled_from(_PHRASES), min_size=1, max_size=8).map(" ".join),
    request=st.sampled_from(_PHRASES),
)
def test_every_agent_and_every_change_of_it_can_run(description: str, request: str) -> None:
    agent = build_agent(decompose(description, None, [], "instructions"), "o")
    parse_graph(agent, BLOCKS, Limits())
    changed = update_agent(agent, request, "p")
    parse_graph(changed, BLOCKS, Limits())
    parse_graph(modify_template(changed, request, None, "q"), BLOCKS, Limits())


async def test_a_change_comes_before_the_output() -> None:
    agent = update_agent(made("an agent that adds two numbers"), "Multiply the result by 10", "p")
    agent = update_agent(agent, "Mail it to me", "q")
    outcome = await ran(agent, a=1, b=2)
    assert outcome == Outcome({"result": ["Simulated Send Email: Mail it to me. Nothing was done.\n30"]})
    assert agent["version"] == 3


def test_an_agent_of_the_library_is_simulated_under_its_name() -> None:
    goal = decompose("Every day run Coffee Post", None, [{"name": "Coffee Post"}])
    agent = build_agent(goal, "o")
    assert "Agent: Coffee Post" in names(agent)
    assert parse_graph(agent, BLOCKS, Limits())


async def test_the_template_of_examples_can_run() -> None:

    document = json.loads((ROOT / "examples/agent_templates/acme/mail-digest.json").read_text())
    outcome = await ran(document)
    assert outcome.output is not None

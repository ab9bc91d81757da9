"""Tests that the generator of examples/ keeps to the protocol for any request."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chat.models import Json
from examples.agent_generator.agents import build_agent, modify_template, update_agent
from examples.agent_generator.directives import Behaviour, DirectiveError
from examples.agent_generator.goals import decompose
from examples.agent_generator.options import Options, read_options
from executor.generator import Instructions
from executor.generator.answers import read_goal

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | _TEXT,
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(_TEXT | st.sampled_from(["id", "name", "steps"]), below)
    ),
    max_leaves=10,
)
_SENTENCE = (
    "every morning when a mail comes search the web for news then summarize it and mail me teleport minds ask ? . ,"
)
_WORDS = st.lists(st.sampled_from(re.findall(r"\S+", _SENTENCE))).map(" ".join)


@given(description=_TEXT | _WORDS, answer_given=st.none() | _TEXT, agents=st.lists(_JSON, max_size=3))
def test_every_description_gets_an_answer_of_the_protocol(
    description: str, answer_given: str | None, agents: list[Json]
) -> None:
    read_goal(orjson.dumps(decompose(description, answer_given, agents)))


@given(
    description=_TEXT,
    wanted=st.sampled_from(["instructions", "clarifying_questions", "unachievable_goal", "vague_goal"]),
)
def test_every_type_of_answer_can_be_requested(description: str, wanted: str) -> None:
    answer = decompose(description, None, [], wanted)
    assert answer["type"] == wanted
    read_goal(orjson.dumps(answer))


@given(instructions=_JSON)
def test_links_name_nodes_that_exist(instructions: Json) -> None:
    agent = build_agent(instructions, "o")
    assert agent["nodes"]
    assert agent == build_agent(instructions, "o")
    assert_linked(agent)


@given(
    agent=st.dictionaries(st.sampled_from(["id", "name", "nodes", "version", "description", "x"]), _JSON), request=_TEXT
)
def test_any_agent_can_be_changed(agent: dict[str, Json], request: str) -> None:
    changed = update_agent(agent, request, "o")
    assert changed["id"] == agent.get("id", changed["id"])
    assert_linked(changed)
    assert modify_template(agent, request, "mine", "o")["id"] != agent.get("id")


def assert_linked(agent: dict[str, Json]) -> None:
    nodes = [node.get("id") for node in agent["nodes"]]
    assert all(link["source_id"] in nodes and link["sink_id"] in nodes for link in agent["links"])


def test_a_directive_in_a_description_applies_to_the_work_that_follows() -> None:
    goal = decompose("Every day mail me [generator: 202-stream delay=2]\n[generator: decompose delay=1]", None, [])
    assert isinstance(read_goal(orjson.dumps(goal)), Instructions)
    behaviour = Behaviour.of(Options(), goal)
    assert (behaviour.way, behaviour.delay) == ("stream", 2)
    assert "generator" not in str(build_agent(goal, "o"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("202-webhook delay=2", Behaviour("webhook", 2)),
        ("202-stream", Behaviour("stream", 3)),
        ("200", Behaviour("now", 3)),
        ("fail error_type=validation_error", Behaviour(delay=3, error_type="validation_error")),
        ("error_type=validation_error fail", Behaviour(delay=3, error_type="validation_error")),
        ("duplicate 3", Behaviour(delay=3, copies=3)),
        ("late 10", Behaviour(delay=10)),
        ("status 429", Behaviour(delay=3, status=429)),
        ("status=200 200", Behaviour("now", 3, status=200)),
        ("progress", Behaviour(delay=3, progress=3)),
        ("progress 200", Behaviour("now", 3, progress=3)),
        ("progress=5 keyed", Behaviour(delay=3, progress=5, auth="keyed")),
    ],
)
def test_a_directive_sets_the_behaviour_for_its_request(line: str, expected: Behaviour) -> None:
    assert Behaviour.of(Options(), {"steps": [f"[generator: {line}]"]}) == expected


@pytest.mark.parametrize("line", ["delay", "delay=x", "delay=-1", "delay=nan", "status=99", "duplicate 101", "what"])
def test_an_invalid_directive_is_refused(line: str) -> None:
    with pytest.raises(DirectiveError):
        Behaviour.of(Options(), f"[generator: {line}]")


def test_options_of_the_command_line_override_the_environment() -> None:
    environment = {
        "GENERATOR_ANSWER": "stream",
        "GENERATOR_DELAY": "7",
        "GENERATOR_API_KEY": "k",
        "GENERATOR_LADDER": "1,2.5",
    }
    options = read_options(["--delay", "1", "--port", "0"], environment)
    assert (options.way, options.delay, options.port, options.api_key) == ("stream", 1, 0, "k")
    assert options.ladder == (1, 2.5)

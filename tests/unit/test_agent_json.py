"""Tests of an agent's JSON: it is parsed to an agent that can be saved or refused, and its secrets are redacted."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.chat.models import MAX_DEPTH
from backend.chat.protocol import agent_json
from backend.chat.protocol.agent_json import REDACTED, UNNAMED, AgentGraph, parse_agent, redacted, without_secrets
from backend.errors import InvalidAgent
from backend.ids import GraphId
from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.options import Limits
from examples.agent_platform.validation import parse_graph


def an_agent(**changes: Any) -> dict[str, Any]:
    return {
        "id": "g",
        "version": 3,
        "is_active": False,
        "name": "Sorter",
        "description": "Sorts",
        "nodes": [{"id": "a", "block_id": "b"}, {"id": "z"}],
        "links": [{"id": "l", "source_id": "a", "sink_id": "z", "is_static": True}],
        "more": {"kept": [1, None]},
        **changes,
    }


def problems_of(value: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidAgent) as refused:
        parse_agent(value)
    assert (refused.value.code, refused.value.status) == ("invalid_agent", 422)
    assert refused.value.extra["problems"] == list(refused.value.problems)
    return refused.value.problems


def test_a_valid_agent_is_not_changed() -> None:
    given = an_agent()
    before = copy.deepcopy(given)
    assert parse_agent(given) == AgentGraph(GraphId("g"), "Sorter", "Sorts", 2, 1, given)
    assert given == before
    assert parse_agent(given).numbered(7) == given | {"version": 7}


@pytest.mark.parametrize("missing", [None, ""])
def test_each_missing_id_gets_a_new_one_of_its_own(missing: str | None) -> None:
    nodes = [{"id": "a"}, {"x": 1}, {"id": missing}]
    graph = parse_agent({"id": missing, "nodes": nodes, "links": [{"source_id": "a", "sink_id": "a"}]})
    ids = [graph.id, *(one["id"] for kind in ("nodes", "links") for one in graph.document[kind])]
    assert len(set(ids)) == 5
    assert all(isinstance(id, str) and id for id in ids)
    assert graph.document["nodes"][1]["x"] == 1


def test_missing_fields_get_defaults() -> None:
    graph = parse_agent({"nodes": []})
    assert graph.document == {
        "id": graph.id, "version": 1, "is_active": True, "name": UNNAMED, "description": "", "nodes": [], "links": [],
    }  # fmt: skip
    assert parse_agent({"nodes": [], "name": " \n a   b "}).name == "a b"


@pytest.mark.parametrize("version", [0, -1, True, "2", 2**31, 1.5, None])
def test_an_invalid_version_becomes_1(version: Any) -> None:
    assert parse_agent(an_agent(version=version)).document["version"] == 1


def test_an_edited_agent_keeps_its_id() -> None:
    for value in (an_agent(), an_agent(id=None), an_agent(id=7)):
        graph = parse_agent(value, graph_id=GraphId("the same"))
        assert graph.id == graph.document["id"] == "the same"


deep: Any = 1
for _ in range(MAX_DEPTH - 1):
    deep = [deep]

INVALID: dict[str, tuple[Any, str]] = {
    "a list": ([], "not a JSON object"),
    "null": (None, "not a JSON object"),
    "text": ("{}", "not a JSON object"),
    "no nodes": ({"name": "x"}, "nodes are not a list"),
    "nodes of another type": (an_agent(nodes={}, links=[]), "nodes are not a list"),
    "links of another type": (an_agent(links="x"), "links are not a list"),
    "a node that is no object": (an_agent(nodes=[{"id": "a"}, {"id": "z"}, 1]), "node at place 3 is not an object"),
    "a link that is no object": (an_agent(links=[None]), "link at place 1 is not an object"),
    "two nodes with one id": (
        an_agent(nodes=[{"id": "a"}, {"id": "z"}, {"id": "a"}]),
        'place 3 has the id "a" of another',
    ),
    "two links with one id": (an_agent(links=an_agent()["links"] * 2), 'place 2 has the id "l" of another link'),
    "a link to nowhere": (an_agent(nodes=[{"id": "a"}]), 'The link "l" has the sink_id "z", which no node has'),
    "a link from nowhere": (an_agent(nodes=[{"id": "z"}]), 'has the source_id "a", which no node has'),
    "a link with one end": (an_agent(links=[{"id": "l", "source_id": "a"}]), 'The link "l" names no node as its sink'),
    "an end of another type": (
        an_agent(links=[{"source_id": ["a"], "sink_id": "z"}]),
        "names no node as its source_id",
    ),
    "an id of another type": (an_agent(id=7), "The agent has an id that is not a printable string"),
    "a long id": (an_agent(id="x" * 129), "The agent has an id that is not"),
    "an id with a line break": (an_agent(nodes=[{"id": "a\n"}], links=[]), "node at place 1 has an id that is not"),
    "a long name": (an_agent(name="x" * 201), "name has more than 200 characters"),
    "a name of another type": (an_agent(name=1), "name is not a string"),
    "a long description": (an_agent(description="x" * 20_001), "description has more than 20000"),
    "is_active as text": (an_agent(is_active="yes"), "is_active is neither"),
    "too many nodes": (an_agent(nodes=[{}] * 1_001, links=[]), "more than 1000 nodes"),
    "too many links": (an_agent(links=[{}] * 5_001), "more than 5000 links"),
    "too deep": (an_agent(more=[deep]), "deeper than 32 levels"),
    "too large": (an_agent(more="x" * 2**20), "larger than 1048576 bytes"),
    "infinite": (an_agent(more=[float("inf")]), "not finite"),
    "NaN": (an_agent(more=float("nan")), "not finite"),
    "a large number": (an_agent(more=2**64), "too large"),
    "not JSON": (an_agent(more={1, 2}), "not JSON"),
    "a key that is no string": (an_agent(more={1: 2}), "key that is not a string"),
}


@pytest.mark.parametrize(("value", "problem"), INVALID.values(), ids=INVALID.keys())
def test_an_invalid_agent_gets_a_readable_problem(value: Any, problem: str) -> None:
    assert any(problem in one for one in problems_of(value)), problems_of(value)


def test_the_greatest_depth_is_accepted() -> None:
    assert parse_agent(an_agent(more=deep)).document["more"] == deep


def test_a_depth_beyond_the_stack_is_refused() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert "deeper" in problems_of(an_agent(more=value))[0]


def test_all_problems_are_listed_up_to_a_limit() -> None:
    assert len(problems_of({"name": 1, "description": 2, "is_active": 3, "nodes": 4, "links": 5, "id": 6})) == 6
    problems = problems_of(an_agent(nodes=[1] * 100, links=[]))
    assert len(problems) == agent_json.MAX_PROBLEMS + 1
    assert problems[-1] == "And 80 more."


def test_characters_that_no_store_holds_are_replaced_before_ids_are_compared() -> None:
    graph = parse_agent(an_agent(name="a\0b\ud800", more={"\udfff": "x\0"}))
    assert graph.name == graph.document["name"] == "a\ufffdb\ufffd"
    assert graph.document["more"] == {"\ufffd": "x\ufffd"}
    assert "of another node" in problems_of(an_agent(nodes=[{"id": "a\0"}, {"id": "a\ud800"}], links=[]))[0]


# --- any JSON -----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters() | st.sampled_from("\0\ud800\udfffaz"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(0, 3) | st.floats() | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
IDS = st.sampled_from(["a", "b", "c", "", "a\0", None]) | VALUES
NODES = st.lists(st.fixed_dictionaries({}, optional={"id": IDS, "more": VALUES}) | VALUES, max_size=4) | VALUES
LINKS = st.lists(st.fixed_dictionaries({}, optional={"id": IDS, "source_id": IDS, "sink_id": IDS}) | VALUES, max_size=4)
AGENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": IDS,
        "version": VALUES,
        "is_active": VALUES,
        "name": VALUES,
        "description": VALUES,
        "nodes": NODES,
        "links": LINKS | VALUES,
        "more": VALUES,
    },
)
VALID_AGENTS = st.fixed_dictionaries(
    {
        "nodes": st.lists(st.sampled_from("abc"), min_size=1, unique=True).map(lambda ids: [{"id": id} for id in ids]),
        "links": st.lists(
            st.fixed_dictionaries({"source_id": st.sampled_from("abc"), "sink_id": st.sampled_from("abc")})
        ),
    },
    optional={"name": TEXT, "description": TEXT, "id": st.sampled_from(["a", None])},
)


@settings(max_examples=400)
@given(AGENTS | VALID_AGENTS | VALUES)
def test_any_value_is_either_an_agent_that_can_be_saved_or_invalid(value: Any) -> None:
    try:
        graph = parse_agent(value)
    except InvalidAgent:
        return
    document = graph.document
    text = orjson.dumps(document)
    assert orjson.loads(text) == document
    assert b"\\u0000" not in text
    ids = [node["id"] for node in document["nodes"]]
    assert len(ids) == len(set(ids)) == graph.node_count
    assert all(link[end] in ids for link in document["links"] for end in ("source_id", "sink_id"))
    assert len({link["id"] for link in document["links"]}) == len(document["links"]) == graph.link_count
    assert (graph.id, graph.name, graph.description) == (document["id"], document["name"], document["description"])
    assert graph.name
    assert parse_agent(document) == graph


# --- secrets ------------------------------------------------------------------------------------------------------

SECRET = [
    "api_key", "apiKey", "API-KEY", "x-api-key", "openai_api_key", "apikeys", "api key 2", "password", "Password",
    "db_password", "userPasswd", "pwd", "secret", "clientSecret", "client-secret", "secrets", "secret_value", "token",
    "accessToken", "refresh_token", "tokens", "BOT_TOKEN", "credentials", "credential", "authorization",
    "Proxy-Authorization", "private_key", "privateKeyPem", "access_key", "aws_secret_access_key", "AWSAccessKeyId",
    "bearer", "oauth", "cookie", "passphrase", "signing_key", "password_hash", "connection_string", "ſecret",
]  # fmt: skip
PLAIN = [
    "name", "description", "key", "keyword", "author", "primary_key", "secretary", "tokenizer", "token_count",
    "public_key", "block_id", "monkey", "passwordless", "credential_type", "value", "id", "source_id", "",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET)
@pytest.mark.parametrize("value", ["canary", {"id": "canary"}, ["canary"]])
def test_a_value_under_the_name_of_a_secret_is_redacted(name: str, value: Any) -> None:
    assert redacted({name: value, "x": [{name: value}]}) == {name: REDACTED, "x": [{name: REDACTED}]}
    assert redacted([{"name": name, "value": value}]) == [{"name": name, "value": REDACTED}]


@pytest.mark.parametrize("name", PLAIN)
def test_a_value_under_another_name_is_kept(name: str) -> None:
    value = {name: "x", "pair": {"name": name, "value": "y"}}
    assert redacted(value) == value


def test_a_token_limit_is_kept_and_a_numeric_password_is_redacted() -> None:
    assert redacted({"max_tokens": 4096, "maxTokens": 1}) == {"max_tokens": 4096, "maxTokens": 1}
    assert redacted({"password": 1234, "token": 7}) == {"password": REDACTED, "token": REDACTED}


def test_the_default_of_an_input_with_the_name_of_a_secret_is_redacted() -> None:
    asked = {"name": "api_key", "type": "string", "default": "canary"}
    assert redacted(asked) == {**asked, "default": REDACTED}
    kept = [{**asked, "default": None}, {"name": "city", "default": "Rome"}]
    assert redacted(kept) == kept


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:canary@host/db", f"postgres://{REDACTED}@host/db"),
        ("https://h/?q=x&api_key=canary#part", f"https://h/?q=x&api_key={REDACTED}#part"),
        ("Authorization: Bearer canary-0123", f"Authorization: Bearer {REDACTED}"),
        ("https://h:80/@a?q=token&page={{page}}", None),
        ("https://h/?token={{token}} by Bearer {{token}}", None),
        ("It takes a bearer authentication.", None),
    ],
)
def test_secrets_in_texts_are_redacted_and_places_of_templates_kept(text: str, shown: str | None) -> None:
    assert redacted({"x": [text]}) == {"x": [shown or text]}


def test_a_secret_is_redacted_at_any_depth() -> None:
    value: Any = {"apiKey": "canary"}
    for n in range(50_000):
        value = [value] if n % 2 else {"x": value}
    shown = redacted(value)
    while not isinstance(shown, dict) or "x" in shown:
        shown = shown[0] if isinstance(shown, list) else shown["x"]
    assert shown == {"apiKey": REDACTED}


@st.composite
def values_with_a_secret(draw: st.DrawFn) -> Any:
    """Generates JSON with a canary below the name of a secret."""
    value: Any = draw(st.sampled_from(["canary", ["canary"], {"x": "canary"}]))
    value = {draw(st.sampled_from(SECRET)): value}
    for _ in range(draw(st.integers(0, 6))):
        beside = draw(PLAIN_VALUES)
        value = draw(st.sampled_from([[beside, value], {"y": value, "z": beside}, {"beside": beside, "x": [value]}]))
    return value


PLAIN_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(PLAIN), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(values_with_a_secret())
def test_redaction_leaves_no_secret_and_does_not_change_its_input(value: Any) -> None:
    before = copy.deepcopy(value)
    shown = redacted(value)
    assert b"canary" not in orjson.dumps(shown)
    assert value == before
    assert redacted(shown) == shown


@settings(max_examples=200)
@given(VALUES)
def test_anything_can_be_redacted(value: Any) -> None:
    redacted(value)


def test_what_was_redacted_is_no_value_of_a_copy() -> None:
    header = {"name": "Authorization", "value": "canary"}
    given = {
        "nodes": [
            {"id": "a", "input_default": {"name": "api_key", "type": "string", "default": "canary"}},
            {"id": "b", "input_default": {"url": "https://h/?api_key=canary", "method": "GET", "headers": [header]}},
            {"id": "c", "input_default": None},
        ],
        "input_schema": {
            "type": "object",
            "properties": {
                "api_key": {"type": "string", "title": "Key", "default": "canary", "examples": ["canary"]},
                "token": {"type": "string"},
                "page": {"type": "string", "default": "https://me:canary@h"},
                "n": {"type": "number", "default": 3},
            },
            "required": ["page"],
        },
    }
    before = orjson.dumps(given)
    shown = without_secrets(given)
    assert [node["input_default"] for node in shown["nodes"]] == [
        {"name": "api_key", "type": "string"},
        {"method": "GET"},
        None,
    ]
    schema = shown["input_schema"]
    assert schema["properties"] == {
        "api_key": {"type": "string", "title": "Key"},
        "token": {"type": "string"},
        "page": {"type": "string"},
        "n": {"type": "number", "default": 3},
    }
    assert schema["required"] == ["page", "api_key"]
    assert b"canary" not in orjson.dumps(shown)
    assert orjson.dumps(given) == before, "the published agent stays as it is"
    assert without_secrets({"nodes": 1, "input_schema": "x"}) == {"nodes": 1, "input_schema": "x"}


def test_a_copy_asks_for_what_was_redacted() -> None:
    block = {
        name: next(one.id for one in BLOCKS.values() if one.name == name) for name in ("Agent Input", "Agent Output")
    }
    inputs = {"name": "api_key", "type": "string", "default": "canary"}
    nodes = [
        {"id": "in", "block_id": block["Agent Input"], "input_default": inputs},
        {"id": "out", "block_id": block["Agent Output"], "input_default": {"name": "out"}},
    ]
    link = {"source_id": "in", "source_name": "result", "sink_id": "out", "sink_name": "value", "is_static": False}
    graph = parse_agent({"name": "x", "nodes": nodes, "links": [link]}).document
    before, after = (parse_graph(one, BLOCKS, Limits()).input_schema for one in (graph, without_secrets(graph)))
    assert (before.get("required", []), after["required"]) == ([], ["api_key"])

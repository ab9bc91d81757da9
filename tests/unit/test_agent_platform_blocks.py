"""Tests of the blocks of the agent platform of examples/."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from examples.agent_generator.blocks import block_named
from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.blocks.block import BlockFailed, Context, InvalidInputs, Services, block_id
from examples.agent_platform.blocks.flow import DELAY, MAX_DELAY
from examples.agent_platform.database import open_database
from examples.agent_platform.model import ScriptedModel
from examples.agent_platform.pages import text_of_html
from examples.agent_platform.shelf import MAX_VALUE, StoredShelf
from examples.agent_platform.web import open_web

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("ab{}. ", max_size=3), below, max_size=3),
    max_leaves=6,
)


@pytest.fixture
async def context() -> AsyncIterator[Context]:
    async with open_database(None) as database, open_web("") as web:
        yield Context("user", "graph", None, Services(StoredShelf(database), web, ScriptedModel(), lambda: NOW))


async def run(context: Context, name: str, /, **inputs: Any) -> dict[str, Any]:
    block = block_named(name)
    return await block.run(block.parse(inputs, strict=True), context)


def run_pure(name: str, /, **inputs: Any) -> dict[str, Any]:
    """Runs a block that needs no context and never waits."""
    block = block_named(name)
    running = block.run(block.parse(inputs, strict=True), None)  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as ended:
        running.send(None)  # type: ignore[attr-defined]
    outputs: dict[str, Any] = ended.value.value
    return outputs


def test_ids_of_blocks_never_change() -> None:
    assert block_id("Send Email") == "c0b76f91-b187-5812-b3b0-3b729a32e092"
    assert len(BLOCKS) == 28


@pytest.mark.parametrize("block", BLOCKS.values(), ids=lambda block: block.name)
def test_a_block_describes_itself_by_json_schemas(block: Any) -> None:
    described = orjson.loads(orjson.dumps(block.as_json()))
    for schema in (described["inputSchema"], described["outputSchema"]):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
    assert described["id"] == block_id(block.name)
    assert described["description"].endswith(".")


@pytest.mark.parametrize(
    ("operation", "a", "b", "result"),
    [
        ("add", 2, 40, 42),
        ("subtract", 2, 40, -38),
        ("multiply", 0.5, 4, 2),
        ("divide", 7, 2, 3.5),
        ("add", 0.5, 1, 1.5),
    ],
)
def test_arithmetic(operation: str, a: float, b: float, result: float) -> None:
    found = run_pure("Arithmetic", operation=operation, a=a, b=b)["result"]
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({"operation": "divide", "a": 1, "b": 0}, "divided by 0"),
        ({"operation": "multiply", "a": 2**53, "b": 2}, "too large"),
        ({"operation": "multiply", "a": 1e300, "b": 1e300}, "too large"),
    ],
)
def test_arithmetic_without_a_result_fails(inputs: dict[str, Any], why: str) -> None:
    with pytest.raises(BlockFailed, match=why):
        run_pure("Arithmetic", **inputs)


@pytest.mark.parametrize(
    ("name", "inputs", "field"),
    [
        ("Arithmetic", {"operation": "add", "a": "1", "b": 1}, "a"),
        ("Arithmetic", {"operation": "add", "a": True, "b": 1}, "a"),
        ("Arithmetic", {"operation": "power", "a": 1, "b": 1}, "operation"),
        ("Arithmetic", {"operation": "add", "a": 1, "b": 1, "c": 1}, "c"),
        ("Delay", {"seconds": MAX_DELAY + 1}, "seconds"),
        ("HTTP Request", {"url": "file:///etc/passwd"}, "url"),
        ("Write Text File", {"name": "", "text": ""}, "name"),
    ],
)
def test_inputs_that_are_not_valid_are_named(name: str, inputs: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputs) as caught:
        block_named(name).parse(inputs, strict=True)
    assert field in [detail["field"] for detail in caught.value.details]


@given(template=st.text("{} abc.\n", max_size=30), values=st.dictionaries(st.sampled_from("abc"), JSON))
def test_a_template_replaces_names_and_evaluates_nothing(template: str, values: dict[str, Any]) -> None:
    try:
        text = run_pure("Text Template", template=template, values=values)["result"]
    except BlockFailed:
        assert "{{" in template
    else:
        assert "{{" in template or text == template


@pytest.mark.parametrize("template", ["{{a.__class__}}", "{{a[0]}}", "{{ 1+1 }}", "{{a", "{{missing}}", "{{}}"])
def test_a_template_has_only_names(template: str) -> None:
    with pytest.raises(BlockFailed, match="template"):
        run_pure("Text Template", template=template, values={"a": "x"})


def test_values_in_a_template_are_texts_or_json() -> None:
    values = {"a": "{{b}}", "b": [1, "ü"], "c": None}
    result = run_pure("Text Template", template="{{a}} {{ b }} <{{c}}> {{{{", values=values)
    assert result == {"result": '{{b}} [1,"ü"] <> {{'}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", {"value": {"a": [{"b c": 1}, 2]}}),
        ("$.a[-1]", {"value": 2}),
        ("a[0]['b c']", {"value": 1}),
        ('$["a"][0]', {"value": {"b c": 1}}),
        ("$.a[2]", {"missing": "$.a[2]"}),
        ("$.a.b", {"missing": "$.a.b"}),
    ],
)
def test_a_path_gets_one_value(path: str, found: dict[str, Any]) -> None:
    assert run_pure("Get JSON Value", value={"a": [{"b c": 1}, 2]}, path=path) == found


@given(value=JSON, path=st.text("$.ab[]'\"01-*?() ", max_size=12))
def test_any_path_finds_something_or_nothing_or_is_refused(value: Any, path: str) -> None:
    with contextlib.suppress(BlockFailed):
        assert set(run_pure("Get JSON Value", value=value, path=path)) < {"value", "missing"}


@given(left=JSON, right=JSON, operator=st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "contains", "is empty"]))
def test_a_condition_fires_one_output(left: Any, right: Any, operator: str) -> None:
    with contextlib.suppress(BlockFailed):
        assert run_pure("Condition", left=left, right=right, operator=operator) in ({"true": left}, {"false": left})


def test_a_condition_gives_the_chosen_value() -> None:
    assert run_pure("Condition", left=1, right=True, yes="y", no="n") == {"false": "n"}
    assert run_pure("Condition", left=[1, 2], operator="contains", right=2, yes="y", no="n") == {"true": "y"}


def test_lists_and_objects_are_built_and_read() -> None:
    assert run_pure("Build List", items=[1], append=None) == {"list": [1, None], "length": 2}
    assert run_pure("Get List Item", items=[1, 2], index=-1) == {"value": 2}
    assert run_pure("Get List Item", items=[], index=0) == {"missing": 0}
    assert run_pure("Build Object", members={"a": 1}) == {"object": {"a": 1}}
    assert run_pure("Get Object Value", object={"a": None}, key="a") == {"value": None}


async def test_the_time_follows_the_time_zone(context: Context) -> None:
    found = await run(context, "Date and Time", timezone="Europe/Berlin")
    assert (found["iso"], found["weekday"]) == ("2026-03-29T03:30:00+02:00", 7)
    with pytest.raises(BlockFailed, match="no time zone"):
        await run(context, "Date and Time", timezone="../etc/passwd")


async def test_values_are_stored_for_a_user_and_a_graph(context: Context) -> None:
    assert await run(context, "Get Stored Value", key="k") == {"missing": "k"}
    assert await run(context, "Get Stored Value", key="k", default=None) == {"value": None}
    await run(context, "Store Value", key="k", value={"a": 1})
    assert await run(context, "Get Stored Value", key="k", default=0) == {"value": {"a": 1}}
    for other in (Context("other", "graph", None, context.services), Context("user", "x", None, context.services)):
        assert await run(other, "Get Stored Value", key="k") == {"missing": "k"}
    with pytest.raises(BlockFailed, match="larger"):
        await run(context, "Store Value", key="k", value="x" * MAX_VALUE)


async def test_a_single_call_has_no_files(context: Context) -> None:
    with pytest.raises(BlockFailed, match="belongs to a run"):
        await run(context, "Write Text File", name="a", text="b")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://localhost:1/", "http://[::1]:1/", "http://169.254.1.1/"]
)
async def test_addresses_that_are_not_public_are_refused(context: Context, url: str) -> None:
    with pytest.raises(BlockFailed, match="not permitted"):
        await run(context, "HTTP Request", url=url)


@pytest.mark.parametrize("url", ["http://user:pass@", "http://[", "http://x:99999999/"])
async def test_a_url_that_is_none_fails(context: Context, url: str) -> None:
    with pytest.raises(BlockFailed):
        await run(context, "HTTP Request", url=url)


def test_the_text_of_a_page_is_what_people_see() -> None:
    page = "<html><head><title>t</title></head><body><h1>A  b</h1><script>x()</script><p>c&amp;d</p></body>"
    assert text_of_html(page) == "A b\nc&d"
    assert text_of_html("<p>a<b>b</b> <!-- x <p>y --> 1 < 2</p><STYLE>z</style >") == "ab 1 < 2"


@pytest.mark.parametrize("piece", ["<p>a</p>", "a < b ", "&amp;", "<b title='c'>d</b>"])
def test_no_page_takes_long(piece: str) -> None:
    """Each takes milliseconds; work that grows with the square of the length would take minutes."""
    assert len(text_of_html(piece * 100_000)) <= len(piece) * 100_000


async def test_simulated_blocks_say_that_they_simulate(context: Context) -> None:
    found = await run(context, "Send Email", instruction="mail me", input="hi")
    assert found == {"result": "Simulated Send Email: mail me. Nothing was done.\nhi"}


async def test_a_script_answers_without_a_model(context: Context) -> None:
    found = await run(context, "AI Text Generator", instruction="Summarise", input="one two")
    assert found["result"] == "Scripted answer (no model is configured) to “Summarise”: one two"


def test_a_request_may_be_repeated_if_it_only_reads() -> None:
    block = block_named("HTTP Request")
    for method, may in (("GET", True), ("HEAD", True), ("POST", False), ("DELETE", False)):
        assert block.may_repeat(block.parse({"url": "https://x.test", "method": method}, strict=True)) is may
    assert DELAY.may_repeat(DELAY.parse({"seconds": 1}, strict=True))

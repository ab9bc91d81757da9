"""Tests of the validation and the execution of graphs by the agent platform of examples/."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.blocks.block import Answer, Context, Services, block_id
from examples.agent_platform.execution import NodeResult, NodeStatus, Outcome, execute, interrupted
from examples.agent_platform.graph import Graph, problems_with_input
from examples.agent_platform.model import ScriptedModel
from examples.agent_platform.options import Limits
from examples.agent_platform.validation import InvalidGraph, parse_graph
from tests.platform_graphs import adder, brancher, graph, link, node

LIMITS = Limits(nodes=20)


class RecordInMemory:
    """Keeps the steps of a run."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: dict[str, NodeResult] = {}

    async def begin(self, node_id: str) -> None:
        assert node_id not in self.begun
        self.begun.append(node_id)

    async def end(self, node_id: str, result: NodeResult) -> None:
        assert node_id not in self.ended
        self.ended[node_id] = result

    @property
    def statuses(self) -> dict[str, str]:
        return {id: str(result.status) for id, result in self.ended.items()}


class GatedWeb:
    """A web in which requests wait until `expected` of them are under way."""

    def __init__(self, expected: int) -> None:
        self._barrier = asyncio.Barrier(expected)

    async def send(self, method: str, url: str, headers: Any, body: bytes | None) -> Answer:
        await self._barrier.wait()
        return Answer(200, "text/plain", url)


def parsed(document: dict[str, Any]) -> Graph:
    return parse_graph(document, BLOCKS, LIMITS)


async def ran(
    document: dict[str, Any],
    node_input: dict[str, Any] | None = None,
    *,
    limits: Limits = LIMITS,
    web: Any = None,
    finished: dict[str, NodeResult] | None = None,
) -> tuple[Outcome, RecordInMemory]:
    record = RecordInMemory()
    services = Services(None, web, ScriptedModel(), lambda: datetime.now(UTC))  # type: ignore[arg-type]
    context = Context("user", "g", "run", services, node_input or {})
    return await execute(parsed(document), context, record, limits, finished or {}), record


def problems_of(document: Any) -> list[str]:
    with pytest.raises(InvalidGraph) as caught:
        parse_graph(document, BLOCKS, LIMITS)
    return [f"{problem.node_id}: {problem.message}" for problem in caught.value.problems]


# --- validation ---------------------------------------------------------------------------------------------------


def test_a_graph_tells_its_inputs_and_outputs() -> None:
    found = parsed(adder())
    assert found.input_schema == {
        "type": "object", "additionalProperties": False, "required": ["a"],
        "properties": {"a": {"type": "number"}, "b": {"type": "number", "default": 1}},
    }  # fmt: skip
    assert found.output_schema["properties"] == {"result": {"type": "number"}}
    assert found.trigger is None
    assert parsed(graph([node("t", "Schedule Trigger")])).trigger == "schedule"
    assert parsed(graph([node("t", "Webhook Trigger")])).trigger == "webhook"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "None: The agent has no list of nodes."),
        ({"nodes": []}, "None: The agent has no list of links."),
        (graph([]), "None: The agent has no nodes."),
        (graph([{"id": "a", "block_id": "x"}]), "a: The platform has no block with this block_id."),
        (graph([{"block_id": block_id("Delay")}]), "None: The node at place 1 has no id."),
        (graph([node("a", "Manual Trigger")] * 2), "a: Two nodes have this id."),
        (graph([{"id": "a", "block_id": block_id("Delay"), "input_default": []}]), "a: Its input_default is not an"),
        (graph([node("a", "Delay")]), "a: The input “seconds” of Delay has neither a link nor a value."),
        (graph([node("a", "Delay", seconds=61)]), "a: The input “seconds” of Delay: Input should be less than"),
        (graph([node("a", "Delay", seconds=1, x=2)]), "a: The input “x” of Delay: Extra inputs"),
        (graph([node(str(n), "Manual Trigger") for n in range(21)]), "None: The agent has 21 nodes; at most 20 can"),
        (graph([node("a", "Agent Output", value=1)]), "a: The input “name” of Agent Output has neither"),
        (graph([node("a", "Agent Input", name="x", type="number", default="1")]), "a: Its default must be of the type"),
        (
            graph([node("a", "Agent Input", name="x"), node("b", "Agent Input", name="x")]),
            "b: Two inputs of the agent have the name “x”.",
        ),
        (
            graph([node("a", "Manual Trigger"), node("b", "Agent Output", value=1)], "a.result -> b.name"),
            "b: Agent Output needs fixed values, only its value may be linked.",
        ),
        (graph([node("a", "Manual Trigger")], "a.result -> b.input"), "None: The link at place 1 names a node that"),
        (graph([node("a", "Manual Trigger")]) | {"links": [{}]}, "None: The link at place 1 does not name source_id"),
        (
            graph([node("a", "Manual Trigger"), node("b", "Delay", seconds=1)], "a.other -> b.value"),
            "a: Manual Trigger has no output “other”.",
        ),
        (
            graph([node("a", "Manual Trigger"), node("b", "Delay", seconds=1)], "a.result -> b.other"),
            "b: Delay has no input “other”.",
        ),
        (
            graph([node("a", "Manual Trigger"), node("b", "Delay", seconds=1)], "a.result -> b.seconds_#_x"),
            "b: Delay has no input “seconds_#_x”.",
        ),
        (
            graph([node(id, "Delay", seconds=1) for id in "ab"], "a.value -> b.value", "b.value -> a.value"),
            "The links form a circle",
        ),
        (graph([node("a", "Delay", seconds=1)], "a.value -> a.value"), "a: The links form a circle"),
        (
            graph([node("a", "Manual Trigger"), node("b", "Delay", seconds=1)], *["a.result -> b.value"] * 2),
            "None: The link at place 2 has the id of another link.",
        ),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_run_is_refused(document: Any, problem: str) -> None:
    assert any(problem in found for found in problems_of(document)), problems_of(document)


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"a": 1}, []),
        ({"a": 1.5, "b": 2}, []),
        ({}, ["a"]),
        ({"a": "1"}, ["a"]),
        ({"a": True}, ["a"]),
        ({"a": 1, "c": 1}, ["c"]),
    ],
)
def test_the_inputs_of_a_run_are_checked(given: dict[str, Any], fields: list[str]) -> None:
    assert [problem["field"] for problem in problems_with_input(parsed(adder()).input_schema, given)] == fields


# --- execution ----------------------------------------------------------------------------------------------------


async def test_values_go_over_links_to_the_output() -> None:
    outcome, record = await ran(adder(), {"a": 41})
    assert outcome == Outcome({"result": [42]})
    assert set(record.statuses.values()) == {"completed"}
    assert record.begun.index("sum") > max(record.begun.index("a"), record.begun.index("b"))


@pytest.mark.parametrize(("n", "words", "skipped"), [(11, "11 is large", "small"), (1, "1 is small", "large")])
async def test_what_hangs_on_an_output_that_does_not_fire_is_skipped(n: int, words: str, skipped: str) -> None:
    outcome, record = await ran(brancher(), {"n": n})
    assert outcome == Outcome({"words": [words]})
    assert [id for id, status in record.statuses.items() if status == "skipped"] == [skipped]


async def test_a_skip_passes_on_to_everything_behind_it() -> None:
    document = graph(
        [
            node("if", "Condition", left=1, right=1),
            node("wait", "Delay", seconds=0),
            node("out", "Agent Output", name="x"),
        ],
        "if.false -> wait.value", "wait.value -> out.value",
    )  # fmt: skip
    outcome, record = await ran(document)
    assert outcome == Outcome({})
    assert record.statuses == {"if": "completed", "wait": "skipped", "out": "skipped"}


async def test_nodes_run_at_the_same_time_where_links_allow() -> None:
    """The requests wait for each other, so one after another would never end."""
    requests = [node(str(n), "HTTP Request", url=f"http://x.test/{n}") for n in range(4)]
    outcome, record = await ran(graph(requests), web=GatedWeb(4))
    assert outcome.error is None
    assert set(record.statuses.values()) == {"completed"}


async def test_values_fill_members_of_lists_and_objects() -> None:
    document = graph(
        [
            node("a", "Arithmetic", operation="add", a=1, b=1),
            node("list", "Build List", items=["x"]),
            node("object", "Build Object", members={"k": 0}),
            node("text", "Text Template", template="{{list}} {{object}}"),
            node("out", "Agent Output", name="text"),
        ],
        "a.result -> list.items_$_2", "a.result -> object.members_#_sum",
        "list.list -> text.values_#_list", "object.object -> text.values_#_object", "text.result -> out.value",
    )  # fmt: skip
    outcome, _ = await ran(document)
    assert outcome == Outcome({"text": ['["x",null,2] {"k":0,"sum":2}']})


@pytest.mark.parametrize(
    ("whole", "parts", "output"),
    [
        ("text", "a.result -> object.members_#_sum", None),
        ("list", "a.result -> object.members_#_sum", None),
        ("first", "a.result -> object.members_#_sum", {"k": 0, "sum": 2}),
    ],
)
async def test_a_value_and_a_member_over_links_make_a_new_object(whole: str, parts: str, output: Any) -> None:
    document = graph(
        [
            node("a", "Arithmetic", operation="add", a=1, b=1),
            node("text", "Text Template", template="no object"),
            node("list", "Build List", items=["x"]),
            node("first", "Build Object", members={"k": 0}),
            node("object", "Build Object"),
            node("out", "Agent Output", name="object"),
        ],
        f"{whole}.{'object' if whole == 'first' else 'list' if whole == 'list' else 'result'} -> object.members", parts,
        "object.object -> out.value",
    )  # fmt: skip
    outcome, record = await ran(document)
    if output is None:
        assert (
            outcome.error
            == "node object: its input is not valid: members: it is no object, so a link cannot fill one member"
        )
    else:
        assert outcome == Outcome({"object": [output]})
    assert record.ended["first"].outputs == {"object": [{"k": 0}]}


async def test_a_value_for_a_text_becomes_a_text() -> None:
    document = graph(
        [node("sum", "Arithmetic", operation="add", a=1, b=1), node("mail", "Send Email")], "sum.result -> mail.input"
    )
    _, record = await ran(document)
    assert record.ended["mail"].outputs["result"] == ["Simulated Send Email. Nothing was done.\n2"]


async def test_a_failure_names_its_node_and_ends_the_run() -> None:
    document = graph(
        [
            node("zero", "Arithmetic", operation="divide", a=1, b=0),
            node("after", "Delay", seconds=0),
            node("out", "Agent Output", name="x"),
        ],
        "zero.result -> after.value", "after.value -> out.value",
    )  # fmt: skip
    outcome, record = await ran(document)
    assert outcome == Outcome(None, "node zero: a number cannot be divided by 0")
    assert record.statuses == {"zero": "failed", "after": "skipped", "out": "skipped"}


async def test_a_node_of_a_wrong_value_fails() -> None:
    document = graph(
        [node("n", "Agent Input", name="n"), node("sum", "Arithmetic", operation="add", b=1)], "n.result -> sum.a"
    )
    outcome, _ = await ran(document, {"n": "one"})
    assert outcome.error is not None
    assert outcome.error.startswith("node sum: its input is not valid: a: ")
    outcome, record = await ran(document, {"n": "41"})
    assert record.ended["sum"].outputs == {"result": [42]}


async def test_an_error_of_the_platform_itself_ends_the_node() -> None:
    outcome, record = await ran(graph([node("get", "Get Stored Value", key="k")]))  # there is no shelf here
    assert outcome.error == "node get: an internal error"
    assert record.statuses == {"get": "failed"}


async def test_a_run_that_takes_too_long_ends() -> None:
    outcome, record = await ran(graph([node("wait", "Delay", seconds=60)]), limits=Limits(run_seconds=0.01))
    assert outcome.error == "the run takes longer than 0.01 seconds"
    assert record.statuses == {"wait": "failed"}


@pytest.mark.parametrize("limits", [Limits(node_output=100), Limits(run_output=100)])
async def test_large_outputs_end_the_run(limits: Limits) -> None:
    outcome, record = await ran(graph([node("text", "Text Template", template="x" * 101)]), limits=limits)
    assert outcome.error is not None
    assert "larger than 100 bytes" in outcome.error
    assert record.ended["text"].outputs == {}


async def test_a_small_graph_cannot_grow_large_values() -> None:
    text = node("text", "Text Template", template="x" * 90)
    many = [f"text.result -> list.items_$_{place}" for place in range(30)]
    outcome, _ = await ran(graph([text, node("list", "Build List")], *many), limits=Limits(run_output=2_000))
    assert outcome.error == "node list: its inputs are larger than 2000 bytes"
    filled = node("text", "Text Template", template="{{x}}" * 1_000, values={"x": "y" * 1_000})
    outcome, _ = await ran(graph([filled]))
    assert outcome.error == "node text: the text is longer than 100000 characters"


async def test_a_run_goes_on_from_its_finished_nodes() -> None:
    finished = {
        "a": NodeResult(NodeStatus.COMPLETED, {"result": [1]}),
        "b": NodeResult(NodeStatus.COMPLETED, {"result": [5]}),
    }
    outcome, record = await ran(adder(), {"a": 100}, finished=finished)
    assert outcome == Outcome({"result": [6]})
    assert record.begun == ["sum", "out"]


async def test_a_cancelled_execution_stops_its_nodes() -> None:
    running = asyncio.create_task(ran(graph([node("wait", "Delay", seconds=60)])))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not [task for task in asyncio.all_tasks() if "_run_node" in repr(task)]


@pytest.mark.parametrize(
    ("block", "inputs", "may_repeat"),
    [
        ("Delay", {"seconds": 1}, True),
        ("HTTP Request", {"url": "http://x.test", "method": "GET"}, True),
        ("HTTP Request", {"url": "http://x.test", "method": "POST"}, False),
        ("Send Email", {}, False),
        ("Write Text File", {"name": "f", "text": "t", "append": True}, False),
    ],
)
def test_only_nodes_without_further_effect_run_again(block: str, inputs: dict[str, Any], may_repeat: bool) -> None:
    found = interrupted(parsed(graph([node("n", block, **inputs)])), "n", {})
    assert found == (None if may_repeat else NodeResult(NodeStatus.FAILED, error="interrupted, may have run"))


# --- any graph ----------------------------------------------------------------------------------------------------

_IDS = st.sampled_from("abcd")
_NODES = st.one_of(
    st.builds(lambda id: node(id, "Arithmetic", operation="add", a=1, b=2), _IDS),
    st.builds(lambda id: node(id, "Condition", left=1, right=1), _IDS),
    st.builds(lambda id: node(id, "Build List"), _IDS),
    st.builds(lambda id: node(id, "Text Template", template="{{x}}"), _IDS),
    st.builds(lambda id: node(id, "Agent Output", name="out"), _IDS),
)
_OUTPUTS = st.sampled_from(["result", "true", "false", "list", "length"])
_INPUTS = st.sampled_from(["a", "left", "append", "items_$_1", "values_#_x", "value"])
_LINKS = st.builds(lambda a, out, b, pin: link(f"{a}.{out} -> {b}.{pin}"), _IDS, _OUTPUTS, _IDS, _INPUTS)


@settings(max_examples=100)
@given(
    nodes=st.lists(_NODES, min_size=1, max_size=4, unique_by=lambda one: one["id"]), links=st.lists(_LINKS, max_size=6)
)
async def test_any_graph_is_refused_or_ends(nodes: list[Any], links: list[Any]) -> None:
    document = {"nodes": nodes, "links": links}
    try:
        parsed(document)
    except InvalidGraph:
        return
    outcome, record = await ran(document)
    assert record.ended.keys() == {one["id"] for one in nodes}
    assert (outcome.error is None) == ("failed" not in record.statuses.values())
    for one in links:
        if record.statuses[one["source_id"]] in ("skipped", "failed"):
            others = [
                other
                for other in links
                if other["sink_id"] == one["sink_id"] and other["sink_name"] == one["sink_name"]
            ]
            assert record.statuses[one["sink_id"]] != "completed" or len(others) > 1


_KEYS = st.sampled_from(["nodes", "links", "id", "block_id", "input_default", "source_id"])


def _below(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(below, max_size=2) | st.dictionaries(_KEYS, below, max_size=3)


@settings(max_examples=50)
@given(document=st.recursive(st.none() | st.text(max_size=3), _below, max_leaves=8))
def test_any_json_is_refused_with_problems(document: Any) -> None:
    assert problems_of(document)

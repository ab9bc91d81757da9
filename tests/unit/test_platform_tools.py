"""Tests of what the tools of the agent platform decide without it: answers, inputs, the search for blocks, progress."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from backend.chat.flows.run_results import MAX_WORDS, run_response, words_for
from backend.chat.models import NewMessage, Role, TextPart, ToolResultPart
from backend.chat.outcomes import AGENT_PLATFORM, Outcome, ToolWork
from backend.ids import TaskId, UserId
from backend.platform.answers import Block, BlockKind, read_blocks, read_run, read_schedules
from backend.platform.client import Platform, user_name
from backend.platform.failures import Failure, PlatformFailure
from backend.platform.inputs import missing_inputs, wrong_inputs
from executor.llm.scripted_runs import requested_run
from executor.tools.agent_runs import outcome_of_run, progress_of_run
from executor.tools.context import ToolContext
from executor.tools.find_block import MAX_FOUND, best_blocks
from executor.tools.platform_inputs import Runnable, response_to_inputs
from executor.tools.run_block import RunBlock, RunBlockArgs
from tests.fakes.agent_platform import ADD_BLOCK, INPUT_BLOCK

TOOLS = {"run_agent", "run_block"}
RUN = {
    "execution_id": "x",
    "status": "running",
    "nodes": [
        {"node_id": "1", "name": "Read", "status": "completed"},
        {"node_id": "2", "name": "Sum", "status": "running"},
        {"node_id": "3", "name": "Mail", "status": "queued"},
    ],
}


def block(number: int, **members: Any) -> Block:
    return read_blocks([{**ADD_BLOCK, "id": f"b{number}", "name": f"Block {number}", **members}])[0]


def test_the_best_of_five_hundred_blocks_come_first() -> None:
    blocks = [block(n, description="Writes numbers to a table") for n in range(498)]
    adds = block(900, name="Add Numbers", description="Arithmetic")
    hidden = block(901, name="Add Numbers", kind="input")
    found = best_blocks([*blocks, adds, hidden], "add numbers")
    assert (found[0], len(found)) == (adds, MAX_FOUND)
    assert hidden not in found
    assert best_blocks(blocks, "telepathy") == []
    assert best_blocks([*blocks, adds], "b42")[0].id == "b42"
    assert best_blocks([hidden, *read_blocks([INPUT_BLOCK])], "add") == []


@pytest.mark.parametrize(
    "wrong",
    [None, {}, [1], [{"id": "a"}], [{**ADD_BLOCK, "kind": "other"}], [{**ADD_BLOCK, "inputSchema": None}]],
)
def test_a_list_of_blocks_that_is_not_one_is_refused(wrong: Any) -> None:
    with pytest.raises(PlatformFailure) as failure:
        read_blocks(wrong)
    assert failure.value.failure is Failure.INVALID_RESPONSE


@pytest.mark.parametrize("wrong", [None, [], {"execution_id": "x"}, {**RUN, "status": "odd"}, {**RUN, "nodes": [1]}])
def test_a_run_that_is_not_one_is_refused(wrong: Any) -> None:
    with pytest.raises(PlatformFailure):
        read_run(wrong)
    with pytest.raises(PlatformFailure):
        read_schedules(wrong)


def test_progress_is_the_share_of_the_steps_that_have_ended() -> None:
    progress = progress_of_run(read_run(RUN))
    assert progress is not None
    assert (progress.percent, progress.message) == (33.3, "1 of 3 steps, now Sum")
    assert progress_of_run(read_run({**RUN, "nodes": []})) is None


def test_a_run_that_has_ended_is_an_outcome() -> None:
    done = outcome_of_run(read_run({**RUN, "status": "completed", "output": {"a": [1]}}))
    assert done == Outcome(True, {"execution_id": "x", "status": "completed", "output": {"a": [1]}})
    failed = outcome_of_run(read_run({**RUN, "status": "failed", "error": "node Sum: no"}))
    assert (failed.success, failed.error) == (False, "node Sum: no")


def test_the_response_of_a_run_has_its_outputs_in_words() -> None:
    order = {"agent_id": "a", "agent_name": "Adder"}
    work = ToolWork(TaskId("t"), "run_agent", "c", {}, order=order, remote=AGENT_PLATFORM)
    done = run_response(work, Outcome(True, {"execution_id": "x", "output": {"sum": [5], "note": ["fine"]}}))
    assert done.message == "The agent “Adder” has run. sum: 5; note: fine"
    failed = run_response(work, Outcome(False, {"error_type": "no_credit"}, "There is no credit."))
    assert getattr(failed, "error", None) == "no_credit"
    odd = run_response(work, Outcome(False, "text", None))
    assert getattr(odd, "error", None) == "run_failed"
    assert len(words_for({"text": ["x" * 10_000]})) < MAX_WORDS + 10
    assert words_for(None) == "It has no output."


@pytest.mark.parametrize("odd", [5, True, 1.5, "x", {}, [5, {}]])
def test_a_platform_may_say_odd_things_about_blocks_and_inputs(odd: Any) -> None:
    assert read_blocks([{**ADD_BLOCK, "categories": odd}])[0].categories == ()
    for schema in ({"properties": {"a": {"type": odd}}}, {"properties": {"a": odd}}, {"required": odd}):
        assert wrong_inputs(schema, {"a": 1}) == {}
        assert missing_inputs(schema, {"a": 1}) == []


def test_inputs_are_checked_against_the_schema() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"n": {"type": "number"}, "how": {"type": "string", "enum": ["up", "down"]}, "any": {}},
        "required": ["n"],
    }
    wanted = Runnable("agent", "a", "Rounder", schema, 2)
    assert response_to_inputs(wanted, {"n": 1.5, "how": "up", "any": [1]}, "s") is None
    missing = response_to_inputs(wanted, {"how": "up"}, "s")
    assert missing is not None
    assert "needs n" in missing.message
    for wrong in ({"n": True}, {"n": "1"}, {"n": 1, "how": "sideways"}, {"n": 1, "unknown": 1}):
        response = response_to_inputs(wanted, wrong, "s")
        assert response is not None
        assert response.model_dump()["type"] == "input_validation_error", wrong
    assert response_to_inputs(Runnable("block", "b", "Anything", {}), {"x": 1}, "s") is None


class OneBlock:
    """A platform with one block, which counts its runs and may refuse them."""

    def __init__(self, *, idempotent: bool, failure: PlatformFailure | None = None) -> None:
        self.block = block(1, idempotent=idempotent)
        self.failure = failure
        self.runs = 0

    async def blocks(self) -> tuple[Block, ...]:
        return (self.block,)

    async def run_block(self, *_: Any) -> dict[str, Any]:
        self.runs += 1
        if self.failure is not None:
            raise self.failure
        return {"result": [3]}


@pytest.mark.parametrize(
    ("idempotent", "again", "failure", "error", "runs"),
    [
        (True, True, None, None, 1),
        (False, False, None, None, 1),
        (False, True, None, "interrupted_unknown_effect", 0),
        (False, False, PlatformFailure(Failure.TIMEOUT, sent=True), "interrupted_unknown_effect", 1),
        (False, False, PlatformFailure(Failure.CONFLICT), "interrupted_unknown_effect", 1),
        (False, False, PlatformFailure(Failure.BLOCK_FAILED), "block_failed", 1),
        (True, False, PlatformFailure(Failure.TIMEOUT, sent=True), "timeout", 1),
    ],
)
async def test_a_block_that_is_not_idempotent_is_run_once(
    idempotent: bool, again: bool, failure: PlatformFailure | None, error: str | None, runs: int
) -> None:
    platform = OneBlock(idempotent=idempotent, failure=failure)
    context = SimpleNamespace(session_id="s", user_id="u", task_id="t", tool_call_id="c", again=again)
    call = RunBlockArgs(block_id="b1", inputs={"a": 1, "b": 2})
    response = await RunBlock(cast(Platform, platform)).run(call, cast(ToolContext, context))
    assert getattr(response, "error", None) == error
    assert platform.runs == runs


def test_the_name_of_a_user_fits_a_header() -> None:
    assert user_name(UserId("auth0|5f7c")) == "auth0|5f7c"
    for odd in ("a b", "é", "x" * 201, "a\nb", "\ud800", "sha256-" + "0" * 64):
        assert user_name(UserId(odd)).startswith("sha256-")
        assert user_name(UserId(odd)) != odd


def conversation(*outputs: Any) -> list[NewMessage]:
    return [NewMessage(Role.TOOL, (ToolResultPart("c", "a_tool", output),)) for output in outputs]


SAVED = {"type": "agent_saved", "library_agent_id": "agent-7"}
SETUP = {
    "type": "setup_requirements",
    "setup_info": {
        "input_schema": {"properties": {"b": {"type": "string"}, "a": {"type": "number"}}},
        "property_order": ["b", "a"],
    },
}


@pytest.mark.parametrize(
    ("asked", "since", "call"),
    [
        ("Run it with 2 and 3", [], 'run_agent {"agent_id":"agent-7"}'),
        ("Run it with 2 and 3", [SETUP], 'run_agent {"agent_id":"agent-7","inputs":{"b":"2","a":3}}'),
        ("Run it with 2 and 3", [SETUP, {}], None),
        ("run it", [], 'run_agent {"agent_id":"agent-7"}'),
        ("run it", [SETUP], None),
        ("Run the agent", [], 'run_agent {"agent_id":"agent-7"}'),
        ('Run the agent x-1 with {"a": 2}', [], 'run_agent {"agent_id":"x-1","inputs":{"a":2}}'),
        ("Please run the agent x-1.", [], 'run_agent {"agent_id":"x-1"}'),
        ('Run the block b1 with {"a": 2}', [], 'run_block {"block_id":"b1","inputs":{"a":2}}'),
        ('Run the block b1 with {"a": 2}', [{}], None),
        ("Run for it", [], None),
        ("How do I run it with 2?", [], None),
    ],
)
def test_the_scripted_model_understands_what_shall_run(asked: str, since: list[Any], call: str | None) -> None:
    after = conversation(*since)
    messages = [*conversation(SAVED), NewMessage(Role.USER, (TextPart(asked),)), *after]
    assert requested_run(asked, messages, after, TOOLS) == call
    assert requested_run(asked, messages, after, ()) is None


def test_without_an_agent_nothing_runs() -> None:
    assert requested_run("Run it", conversation({"type": "block_list"}), [], TOOLS) is None
    assert BlockKind("trigger") is BlockKind.TRIGGER

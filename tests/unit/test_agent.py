"""Tests of the agent's loop of model and tools: its items, their order, and what an interrupted run keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, cast

import pytest
from pydantic import BaseModel

from backend.chat.models import AnswerEnd, NewMessage, Role, SourcePart, TextPart, ToolCallPart, ToolResultPart, Usage
from backend.chat.outcomes import Operation, Outcome
from backend.chat.protocol.chunks import (
    Chunk,
    FinishStep,
    SourceUrl,
    StartStep,
    TextDelta,
    TextEnd,
    ToolInputAvailable,
    ToolInputError,
    ToolOutputAvailable,
    ToolOutputError,
)
from backend.chat.protocol.tool_responses import NoResults, ToolResponse
from backend.errors import Fenced, ProviderError
from backend.files.kinds import Kind
from backend.ids import SessionId, TaskId
from backend.postgres import Database
from executor.agent.agent import WAITS, Agent, Answerer, Commit, Limits, Row
from executor.agent.response import MAX_SOURCES
from executor.llm import events
from executor.llm.model import Prompt
from executor.operations import Operations
from executor.tools.approval import Decision
from executor.tools.ask_user import ASK_USER, AskUser
from executor.tools.context import ToolContext
from executor.tools.tool import Tool, Toolbox
from executor.turns.page_tools import PageTool, TurnToolbox
from tests.speed import limit

QUESTION = NewMessage(Role.USER, (TextPart("hello"),))
LIMITS = Limits(steps=5, tokens=1_000, tool_seconds=5)


class FixedModel:
    """A model with fixed answers: one list of events for each call."""

    name = "fixed"

    def __init__(self, *answers: Sequence[events.ModelEvent]) -> None:
        self._answers = list(answers)
        self.prompts: list[Prompt] = []

    def room(self, prompt: Prompt) -> int | None:
        return None

    def refused_kinds(self) -> frozenset[Kind]:
        return frozenset()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[events.ModelEvent, None]:
        self.prompts.append(prompt)
        for event in self._answers.pop(0):
            await asyncio.sleep(0)
            yield event


class NoOperations:
    """The operations of calls that begin none."""

    async def fail(self, tool_call_id: str, outcome: Outcome) -> Operation | None:
        return None


class ToolHost:
    def __init__(self, *, fenced: bool = False) -> None:
        self._fenced = fenced

    def context_of(self, tool_call_id: str) -> ToolContext:
        database = cast(Database, None)  # no tool of these tests has a database
        return ToolContext(
            SessionId("s" * 16), TaskId("t"), tool_call_id, None, database, cast(Operations, NoOperations())
        )

    async def check_claim(self) -> None:
        if self._fenced:
            raise Fenced

    async def decision_for(self, tool: Tool[Any]) -> Decision:
        return Decision.ALLOW

    async def begin_run(self) -> None: ...

    async def other_questions_wait(self) -> bool:
        return False


class NoInput(BaseModel):
    pass


class BarrierTool(Tool[NoInput]):
    """A tool whose calls return only once `parties` of them run at the same time."""

    name: ClassVar[str] = "wait"
    description: ClassVar[str] = "waits"
    input_type = NoInput

    def __init__(self, parties: int) -> None:
        self._barrier = asyncio.Barrier(parties)
        self.started = 0

    async def run(self, call: NoInput, context: ToolContext) -> ToolResponse:
        self.started += 1
        await self._barrier.wait()
        return NoResults(message="waited")


class IdempotentTool(BarrierTool):
    name: ClassVar[str] = "again"
    idempotent: ClassVar[bool] = True


class FailingTool(BarrierTool):
    name: ClassVar[str] = "fail"

    async def run(self, call: NoInput, context: ToolContext) -> ToolResponse:
        raise OSError("a secret path")


def call(index: int, name: str, text: str = "{}") -> list[events.ModelEvent]:
    return [
        events.ToolCallStart(index, f"x{index}", name),
        events.ToolCallDelta(index, text),
        events.ToolCallEnd(index),
    ]


def text_answer(*texts: str) -> list[events.ModelEvent]:
    return [*(events.TextDelta(text) for text in texts), events.Finished("stop", Usage(1, len(texts)))]


def calls(*names: str, tokens: int = 1, text: str = "{}") -> list[events.ModelEvent]:
    made = [event for index, name in enumerate(names) for event in call(index, name, text)]
    return [*made, events.Finished("tool-calls", Usage(tokens, tokens))]


def agent_of(
    model: FixedModel,
    *tools: Tool[NoInput],
    host: ToolHost | None = None,
    limits: Limits = LIMITS,
    toolbox: Toolbox | None = None,
) -> Agent:
    def prompt_of(rows: Sequence[Row]) -> Prompt:
        return Prompt("", [NewMessage(row.role, row.parts) for row in rows])

    answerer = Answerer("m", model, prompt_of)
    return Agent([answerer], toolbox or Toolbox(tools), host or ToolHost(), limits, label="7-1")


async def run(agent: Agent) -> list[Chunk | Commit]:
    async with asyncio.timeout(limit(20)), aclosing(agent.run([QUESTION])) as items:
        return [item async for item in items]


def kinds(items: Sequence[Chunk | Commit]) -> list[str]:
    return ["commit" if isinstance(item, Commit) else item.type for item in items]


async def test_a_plain_answer_is_one_step_and_its_last_commit_carries_the_message() -> None:
    items = await run(agent_of(FixedModel(text_answer("Hel", "lo"))))
    assert kinds(items) == ["start-step", "text-start", "text-delta", "text-delta", "text-end", "commit"]
    last = items[-1]
    assert isinstance(last, Commit)
    assert last.messages == (NewMessage(Role.ASSISTANT, (TextPart("Hello"),)),)
    assert last.last == AnswerEnd("stop")


async def test_calls_are_committed_before_they_run_and_a_step_before_the_next_begins() -> None:
    tool = BarrierTool(1)
    agent = agent_of(FixedModel(calls("wait"), text_answer("done")), tool)
    seen = []
    async with aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            seen.append(item)
            if isinstance(item, Commit) and item.messages[0].role is Role.ASSISTANT and item.last is None:
                assert tool.started == 0
    commits = [place for place, item in enumerate(seen) if isinstance(item, Commit)]
    assert kinds(seen)[commits[1] - 1] == "finish-step"
    assert kinds(seen)[commits[1] + 1] == "start-step"


async def test_calls_of_one_step_run_side_by_side() -> None:
    items = await run(agent_of(FixedModel(calls("wait", "wait", "wait"), text_answer("done")), BarrierTool(3)))
    assert kinds(items).count("tool-output-available") == 3


async def test_results_are_stored_in_the_order_of_their_calls() -> None:
    items = await run(
        agent_of(FixedModel(calls("wait", "fail", "wait"), text_answer("done")), BarrierTool(2), FailingTool(1))
    )
    stored = [item for item in items if isinstance(item, Commit)][1]
    results = [part for message in stored.messages for part in message.parts if isinstance(part, ToolResultPart)]
    assert [result.tool_call_id for result in results] == ["call_7-1-1_0", "call_7-1-1_1", "call_7-1-1_2"]


async def test_an_exception_in_a_tool_is_an_error_the_model_sees_without_its_secrets() -> None:
    model = FixedModel(calls("fail"), text_answer("sorry"))
    items = await run(agent_of(model, FailingTool(1)))
    output = next(item.output for item in items if isinstance(item, ToolOutputAvailable))
    assert output["type"] == "error"
    assert "secret" not in str(output)
    assert "secret" not in str(model.prompts[1])


async def test_an_unknown_tool_is_an_error_the_model_sees() -> None:
    items = await run(agent_of(FixedModel(calls("unknown"), text_answer("sorry"))))
    output = next(item.output for item in items if isinstance(item, ToolOutputAvailable))
    assert output["error"] == "unknown_tool"


async def test_a_tool_that_this_turn_does_not_offer_is_unknown() -> None:
    """A model may call what it has seen in an earlier turn of the conversation, or knows by itself."""
    toolbox = TurnToolbox(Toolbox([AskUser(), BarrierTool(1)]), (), withheld=(ASK_USER,))
    for name, given in [
        ("ask_user", {"question": "?"}),
        ("call_tool", {"name": "ask_user", "arguments": {"question": "?"}}),
        ("call_tool", {"name": "wait", "arguments": {}}),
        ("search_tools", {"query": "wait"}),
    ]:
        model = FixedModel(calls(name, text=json.dumps(given)), text_answer("sorry"))
        items = await run(agent_of(model, toolbox=toolbox))
        output = next(item.output for item in items if isinstance(item, ToolOutputAvailable))
        assert output["error"] == "unknown_tool", name
    assert [spec.name for spec in toolbox.specs] == ["wait"]


def test_a_page_may_have_a_tool_of_a_name_that_is_withheld() -> None:
    toolbox = TurnToolbox(Toolbox([AskUser(), BarrierTool(1)]), [{"name": "ask_user"}], withheld=(ASK_USER,))
    assert isinstance(toolbox.find("ask_user"), PageTool)
    assert isinstance(toolbox.find("wait"), BarrierTool)
    offering = TurnToolbox(Toolbox([AskUser()]), [{"name": "ask_user"}], withheld=())
    assert isinstance(offering.find("ask_user"), AskUser)


async def test_a_continuation_whose_result_is_stored_says_nothing_while_another_question_is_open() -> None:
    """The attempt before died between its step and its end."""

    class OthersWait(ToolHost):
        async def other_questions_wait(self) -> bool:
            return True

    asked = NewMessage(Role.ASSISTANT, (ToolCallPart("q", "ask_user", {}),))
    answered = NewMessage(Role.TOOL, (ToolResultPart("q", "ask_user", {"type": "user_answered"}),))
    model = FixedModel(text_answer("too early"))
    agent = agent_of(model, host=OthersWait())
    agent.recall([asked, answered], Usage(), step_open=False)
    (last,) = await run(agent)
    assert isinstance(last, Commit)
    assert (last.messages, last.last) == ((), WAITS)
    assert model.prompts == []


async def test_an_input_that_is_not_json_ends_the_call_with_an_input_error_and_no_output() -> None:
    model = FixedModel(calls("wait", text='{"half'), text_answer("sorry"))
    items = await run(agent_of(model, BarrierTool(1)))
    assert [item.input for item in items if isinstance(item, ToolInputError)] == ['{"half']
    assert not [item for item in items if isinstance(item, ToolOutputAvailable | ToolOutputError)]
    assert model.prompts[1].messages[-1].role is Role.TOOL


async def test_keys_that_break_clients_are_removed_from_the_input() -> None:
    items = await run(
        agent_of(FixedModel(calls("wait", text='{"__proto__":{"a":1},"b":2}'), text_answer("ok")), BarrierTool(1))
    )
    assert [item.input for item in items if isinstance(item, ToolInputAvailable)] == [{"b": 2}]


async def test_messages_of_the_user_come_after_the_results_and_before_the_next_call_of_the_model() -> None:
    model = FixedModel(calls("wait"), calls("wait"), text_answer("done"))
    agent = agent_of(model, BarrierTool(1))
    before, between = (NewMessage(Role.USER, (TextPart(text),)) for text in ("before", "between"))
    agent.take_in([before])
    commits = []
    async with asyncio.timeout(limit(20)), aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            if isinstance(item, Commit):
                commits.append(item.goes_on)
                if commits == [False, True]:
                    agent.take_in([between])
    assert commits == [False, True, False, True, False], "only results are followed by a call of the model"
    roles = [[message.role.value for message in prompt.messages] for prompt in model.prompts]
    step = ["assistant", "tool"]
    assert roles == [["user", "user"], ["user", "user", *step, "user"], ["user", "user", *step, "user", *step]]
    assert model.prompts[1].messages[-1] == between


@pytest.mark.parametrize("limits", [Limits(1, 1_000, 5), Limits(5, 1, 5)], ids=["steps", "tokens"])
async def test_a_turn_that_has_reached_a_limit_takes_in_no_messages(limits: Limits) -> None:
    agent = agent_of(FixedModel(calls("wait")), BarrierTool(1), limits=limits)
    commits: list[bool] = []

    async def read() -> None:
        async with asyncio.timeout(limit(20)), aclosing(agent.run([QUESTION])) as items:
            async for item in items:
                if isinstance(item, Commit):
                    commits.append(item.goes_on)

    with pytest.raises(ProviderError):
        await read()
    assert commits == [False, False]


async def test_a_turn_with_too_many_steps_fails() -> None:
    model = FixedModel(*(calls("wait") for _ in range(5)))
    with pytest.raises(ProviderError) as failure:
        await run(agent_of(model, BarrierTool(1)))
    assert failure.value.code == "too_many_steps"


async def test_a_turn_with_too_many_tokens_fails() -> None:
    with pytest.raises(ProviderError) as failure:
        await run(agent_of(FixedModel(calls("wait", tokens=600)), BarrierTool(1)))
    assert failure.value.code == "turn_tokens_exceeded"


async def test_tokens_of_earlier_attempts_count_towards_the_limit() -> None:
    agent = agent_of(FixedModel(calls("wait")), BarrierTool(1))
    agent.recall([], Usage(LIMITS.tokens, 0), step_open=False)
    with pytest.raises(ProviderError) as failure:
        await run(agent)
    assert failure.value.code == "turn_tokens_exceeded"


async def test_no_tool_starts_after_another_executor_took_the_claim() -> None:
    tool = BarrierTool(1)
    with pytest.raises(Fenced):
        await run(agent_of(FixedModel(calls("wait")), tool, host=ToolHost(fenced=True)))
    assert tool.started == 0


async def stopped_after(agent: Agent, kind: str) -> tuple[list[Chunk], list[NewMessage]]:
    async with asyncio.timeout(limit(20)), aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            if not isinstance(item, Commit) and item.type == kind:
                break
    return agent.interrupt("cancelled")


async def test_a_stop_in_the_middle_of_text_closes_the_part_and_keeps_the_text() -> None:
    closing, kept = await stopped_after(agent_of(FixedModel(text_answer("Hel", "lo"))), "text-delta")
    assert closing == [TextEnd("t7-1-1-0")]
    assert kept == [NewMessage(Role.ASSISTANT, (TextPart("Hel"),))]


async def test_a_stop_in_the_middle_of_a_tool_input_closes_the_call_with_a_result() -> None:
    closing, kept = await stopped_after(agent_of(FixedModel(calls("wait", text='{"a'))), "tool-input-delta")
    assert [type(chunk) for chunk in closing] == [ToolInputError]
    assert [message.role for message in kept] == [Role.ASSISTANT, Role.TOOL]


async def test_a_stop_after_a_tool_input_became_valid_json_closes_the_call_with_a_result() -> None:
    half = [events.ToolCallStart(0, "x", "wait"), events.ToolCallDelta(0, '{"a":1}'), events.ToolCallDelta(0, " ")]
    agent = agent_of(FixedModel([*half, *text_answer("never")]), BarrierTool(1))
    seen = 0
    async with aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            seen += not isinstance(item, Commit) and item.type == "tool-input-delta"
            if seen == 2:
                break
    closing, kept = agent.interrupt("cancelled")
    assert [type(chunk) for chunk in closing] == [ToolInputAvailable, ToolOutputError]
    assert [message.role for message in kept] == [Role.ASSISTANT, Role.TOOL]


async def test_a_stop_while_calls_run_keeps_the_results_so_far() -> None:
    agent = agent_of(FixedModel(calls("fail", "wait")), FailingTool(1), BarrierTool(2))
    closing, kept = await stopped_after(agent, "tool-output-available")
    assert [type(chunk) for chunk in closing] == [ToolOutputError]
    results = [part for message in kept for part in message.parts if isinstance(part, ToolResultPart)]
    assert [result.is_error for result in results] == [False, True]


async def test_a_stop_after_the_commit_of_a_step_keeps_nothing_more() -> None:
    agent = agent_of(FixedModel(calls("wait"), text_answer("done")), BarrierTool(1))
    async with aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            if isinstance(item, StartStep) and agent.usage.total_tokens:
                break
    assert agent.interrupt("cancelled") == ([], [])


def pending(name: str) -> list[NewMessage]:
    return [NewMessage(Role.ASSISTANT, (ToolCallPart("call_1", name, {}),))]


async def test_a_call_that_may_have_run_is_not_repeated_and_the_model_gets_an_error() -> None:
    tool, model = BarrierTool(1), FixedModel(text_answer("I see"))
    agent = agent_of(model, tool)
    agent.recall(pending("wait"), Usage(), step_open=True)
    async with aclosing(agent.run([QUESTION, *pending("wait")])) as items:
        seen = [item async for item in items]
    assert tool.started == 0
    result = model.prompts[0].messages[-1].parts[0]
    assert isinstance(result, ToolResultPart)
    assert result.output["error"] == "interrupted_unknown_effect"
    assert kinds(seen)[:4] == ["tool-output-error", "finish-step", "commit", "start-step"]


async def test_a_call_of_an_idempotent_tool_is_run_again() -> None:
    tool = IdempotentTool(1)
    agent = agent_of(FixedModel(text_answer("done")), tool)
    agent.recall(pending("again"), Usage(), step_open=True)
    async with aclosing(agent.run([QUESTION, *pending("again")])) as items:
        seen = [item async for item in items]
    assert tool.started == 1
    assert isinstance(seen[0], ToolOutputAvailable)
    assert isinstance(seen[1], FinishStep)


async def test_a_step_that_readers_have_open_is_not_opened_again() -> None:
    agent = agent_of(FixedModel(text_answer("done")))
    agent.recall([], Usage(), step_open=True)
    items = await run(agent)
    assert kinds(items)[0] == "text-start"
    assert [item.delta for item in items if isinstance(item, TextDelta)] == ["done"]


A_PAGE = events.Source("https://a.b/", "A page")


def sources_in(items: Sequence[Chunk | Commit]) -> list[SourceUrl]:
    return [item for item in items if isinstance(item, SourceUrl)]


async def test_sources_follow_the_text_and_are_stored_as_they_were_streamed() -> None:
    answer = [A_PAGE, events.TextDelta("Hel"), events.Source("https://c.d/"), A_PAGE, *text_answer("lo")]
    items = await run(agent_of(FixedModel(answer)))
    texts = ["text-start", "text-delta", "text-delta", "text-end"]
    assert kinds(items) == ["start-step", *texts, "source-url", "source-url", "commit"]
    first, second = SourceUrl("s7-1-1-1", A_PAGE.url, A_PAGE.title), SourceUrl("s7-1-1-2", "https://c.d/")
    assert sources_in(items) == [first, second]
    last = items[-1]
    assert isinstance(last, Commit)
    parts = (TextPart("Hello"), *(SourcePart(one.source_id, one.url, one.title) for one in (first, second)))
    assert last.messages == (NewMessage(Role.ASSISTANT, parts),)


async def test_an_answer_cites_a_page_once_across_steps_and_takeovers() -> None:
    many = [events.Source(f"https://a.b/{n}") for n in range(2 * MAX_SOURCES)]
    model = FixedModel([A_PAGE, *calls("wait")], [A_PAGE, *many, *text_answer("done")])
    items = await run(agent_of(model, BarrierTool(1)))
    assert [one.url for one in sources_in(items)] == [A_PAGE.url, *(page.url for page in many[: MAX_SOURCES - 1])]
    again = agent_of(FixedModel([A_PAGE, many[0], *text_answer("done")]))
    again.recall([NewMessage(Role.ASSISTANT, (SourcePart("s", A_PAGE.url),))], Usage(), step_open=False)
    assert [one.url for one in sources_in(await run(again))] == [many[0].url]


async def test_a_stop_in_the_middle_of_text_keeps_the_sources_so_far() -> None:
    answer = [A_PAGE, events.TextDelta("Hel"), events.Source("https://never.sent/"), *text_answer("lo")]
    closing, kept = await stopped_after(agent_of(FixedModel(answer)), "text-delta")
    assert closing == [TextEnd("t7-1-1-0"), SourceUrl("s7-1-1-1", A_PAGE.url, A_PAGE.title)]
    assert kept == [NewMessage(Role.ASSISTANT, (TextPart("Hel"), SourcePart("s7-1-1-1", A_PAGE.url, A_PAGE.title)))]

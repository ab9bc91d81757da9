"""The model ⇄ tools loop: what it yields, in which order, and what is left when it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import ClassVar, cast

import pytest
from pydantic import BaseModel

from backend.chat.chunks import (
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
from backend.chat.models import NewMessage, Role, SourcePart, TextPart, ToolCallPart, ToolResultPart, Usage
from backend.chat.tool_responses import NoResults, ToolResponse
from backend.errors import Fenced, ProviderError
from backend.ids import SessionId, TaskId
from backend.postgres import Database
from executor.agent.agent import Agent, Commit, Limits, Row
from executor.agent.response import MAX_SOURCES
from executor.llm import events
from executor.llm.model import Prompt
from executor.operations import Operations
from executor.tools.tool import Tool, Toolbox, ToolContext
from tests.speed import limit

QUESTION = NewMessage(Role.USER, (TextPart("hello"),))
LIMITS = Limits(steps=5, tokens=1_000, tool_seconds=5)


class Recital:
    """A model outside of the project, as the loop sees it: one list of events for each call."""

    name = "recital"

    def __init__(self, *answers: Sequence[events.ModelEvent]) -> None:
        self._answers = list(answers)
        self.prompts: list[Prompt] = []

    async def stream(self, prompt: Prompt) -> AsyncGenerator[events.ModelEvent, None]:
        self.prompts.append(prompt)
        for event in self._answers.pop(0):
            await asyncio.sleep(0)
            yield event


class Desk:
    def __init__(self, *, fenced: bool = False) -> None:
        self._fenced = fenced

    def context_of(self, tool_call_id: str) -> ToolContext:
        database = cast(Database, None)  # no tool of these tests has a database
        return ToolContext(SessionId("s" * 16), TaskId("t"), tool_call_id, None, database, cast(Operations, None))

    async def check_claim(self) -> None:
        if self._fenced:
            raise Fenced


class Nothing(BaseModel):
    pass


class Meeting(Tool[Nothing]):
    """Ends only when all its guests are there: calls that run one after the other would wait for ever."""

    name: ClassVar[str] = "meet"
    description: ClassVar[str] = "meets"
    input_type = Nothing

    def __init__(self, guests: int) -> None:
        self._barrier = asyncio.Barrier(guests)
        self.started = 0

    async def run(self, call: Nothing, context: ToolContext) -> ToolResponse:
        self.started += 1
        await self._barrier.wait()
        return NoResults(message="met")


class Again(Meeting):
    name: ClassVar[str] = "again"
    idempotent: ClassVar[bool] = True


class Failing(Meeting):
    name: ClassVar[str] = "fail"

    async def run(self, call: Nothing, context: ToolContext) -> ToolResponse:
        raise OSError("a secret path")


def call(index: int, name: str, text: str = "{}") -> list[events.ModelEvent]:
    return [
        events.ToolCallStart(index, f"x{index}", name),
        events.ToolCallDelta(index, text),
        events.ToolCallEnd(index),
    ]


def words(*texts: str) -> list[events.ModelEvent]:
    return [*(events.TextDelta(text) for text in texts), events.Finished("stop", Usage(1, len(texts)))]


def calls(*names: str, tokens: int = 1, text: str = "{}") -> list[events.ModelEvent]:
    made = [event for index, name in enumerate(names) for event in call(index, name, text)]
    return [*made, events.Finished("tool-calls", Usage(tokens, tokens))]


def agent_of(model: Recital, *tools: Tool[Nothing], desk: Desk | None = None, limits: Limits = LIMITS) -> Agent:
    def prompt_of(rows: Sequence[Row]) -> Prompt:
        return Prompt("", [NewMessage(row.role, row.parts) for row in rows])

    return Agent(model, Toolbox(tools), desk or Desk(), limits, prompt_of, label="7-1")


async def run(agent: Agent) -> list[Chunk | Commit]:
    async with asyncio.timeout(limit(20)), aclosing(agent.run([QUESTION])) as items:
        return [item async for item in items]


def kinds(items: Sequence[Chunk | Commit]) -> list[str]:
    return ["commit" if isinstance(item, Commit) else item.type for item in items]


async def test_a_plain_answer_is_one_step_and_its_last_commit_carries_the_message() -> None:
    items = await run(agent_of(Recital(words("Hel", "lo"))))
    assert kinds(items) == ["start-step", "text-start", "text-delta", "text-delta", "text-end", "commit"]
    last = items[-1]
    assert isinstance(last, Commit)
    assert last.messages == (NewMessage(Role.ASSISTANT, (TextPart("Hello"),)),)
    assert last.last == "stop"


async def test_calls_are_committed_before_they_run_and_a_step_before_the_next_begins() -> None:
    tool = Meeting(1)
    agent = agent_of(Recital(calls("meet"), words("done")), tool)
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
    items = await run(agent_of(Recital(calls("meet", "meet", "meet"), words("done")), Meeting(3)))
    assert kinds(items).count("tool-output-available") == 3


async def test_results_are_stored_in_the_order_of_their_calls() -> None:
    items = await run(agent_of(Recital(calls("meet", "fail", "meet"), words("done")), Meeting(2), Failing(1)))
    stored = [item for item in items if isinstance(item, Commit)][1]
    results = [part for message in stored.messages for part in message.parts if isinstance(part, ToolResultPart)]
    assert [result.tool_call_id for result in results] == ["call_7-1-1_0", "call_7-1-1_1", "call_7-1-1_2"]


async def test_an_exception_in_a_tool_is_an_error_the_model_sees_without_its_secrets() -> None:
    model = Recital(calls("fail"), words("sorry"))
    items = await run(agent_of(model, Failing(1)))
    output = next(item.output for item in items if isinstance(item, ToolOutputAvailable))
    assert output["type"] == "error"
    assert "secret" not in str(output)
    assert "secret" not in str(model.prompts[1])


async def test_an_unknown_tool_is_an_error_the_model_sees() -> None:
    items = await run(agent_of(Recital(calls("nobody"), words("sorry"))))
    output = next(item.output for item in items if isinstance(item, ToolOutputAvailable))
    assert output["error"] == "unknown_tool"


async def test_an_input_that_is_no_json_ends_the_call_with_an_input_error_and_no_output() -> None:
    model = Recital(calls("meet", text='{"half'), words("sorry"))
    items = await run(agent_of(model, Meeting(1)))
    assert [item.input for item in items if isinstance(item, ToolInputError)] == ['{"half']
    assert not [item for item in items if isinstance(item, ToolOutputAvailable | ToolOutputError)]
    assert model.prompts[1].messages[-1].role is Role.TOOL


async def test_keys_that_break_clients_are_not_passed_on() -> None:
    items = await run(agent_of(Recital(calls("meet", text='{"__proto__":{"a":1},"b":2}'), words("ok")), Meeting(1)))
    assert [item.input for item in items if isinstance(item, ToolInputAvailable)] == [{"b": 2}]


async def test_too_many_steps_fail_with_a_sentence() -> None:
    model = Recital(*(calls("meet") for _ in range(5)))
    with pytest.raises(ProviderError) as failure:
        await run(agent_of(model, Meeting(1)))
    assert failure.value.code == "too_many_steps"


async def test_too_many_tokens_fail_with_a_sentence() -> None:
    with pytest.raises(ProviderError) as failure:
        await run(agent_of(Recital(calls("meet", tokens=600)), Meeting(1)))
    assert failure.value.code == "turn_tokens_exceeded"


async def test_tokens_of_earlier_attempts_count() -> None:
    agent = agent_of(Recital(calls("meet")), Meeting(1))
    agent.recall([], Usage(LIMITS.tokens, 0), step_open=False)
    with pytest.raises(ProviderError) as failure:
        await run(agent)
    assert failure.value.code == "turn_tokens_exceeded"


async def test_no_tool_starts_when_the_claim_is_another_executors() -> None:
    tool = Meeting(1)
    with pytest.raises(Fenced):
        await run(agent_of(Recital(calls("meet")), tool, desk=Desk(fenced=True)))
    assert tool.started == 0


async def stopped_after(agent: Agent, kind: str) -> tuple[list[Chunk], list[NewMessage]]:
    async with asyncio.timeout(limit(20)), aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            if not isinstance(item, Commit) and item.type == kind:
                break
    return agent.interrupt("cancelled")


async def test_stopped_in_mid_text_it_closes_the_part_and_keeps_the_text() -> None:
    closing, kept = await stopped_after(agent_of(Recital(words("Hel", "lo"))), "text-delta")
    assert closing == [TextEnd("t7-1-1-0")]
    assert kept == [NewMessage(Role.ASSISTANT, (TextPart("Hel"),))]


async def test_stopped_in_mid_input_it_closes_the_call_and_gives_it_a_result() -> None:
    closing, kept = await stopped_after(agent_of(Recital(calls("meet", text='{"a'))), "tool-input-delta")
    assert [type(chunk) for chunk in closing] == [ToolInputError]
    assert [message.role for message in kept] == [Role.ASSISTANT, Role.TOOL]


async def test_stopped_in_mid_input_that_could_be_read_already_it_closes_the_call_all_the_same() -> None:
    half = [events.ToolCallStart(0, "x", "meet"), events.ToolCallDelta(0, '{"a":1}'), events.ToolCallDelta(0, " ")]
    agent = agent_of(Recital([*half, *words("never")]), Meeting(1))
    seen = 0
    async with aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            seen += not isinstance(item, Commit) and item.type == "tool-input-delta"
            if seen == 2:
                break
    closing, kept = agent.interrupt("cancelled")
    assert [type(chunk) for chunk in closing] == [ToolInputAvailable, ToolOutputError]
    assert [message.role for message in kept] == [Role.ASSISTANT, Role.TOOL]


async def test_stopped_while_calls_run_it_keeps_the_results_that_are_there() -> None:
    agent = agent_of(Recital(calls("fail", "meet")), Failing(1), Meeting(2))
    closing, kept = await stopped_after(agent, "tool-output-available")
    assert [type(chunk) for chunk in closing] == [ToolOutputError]
    results = [part for message in kept for part in message.parts if isinstance(part, ToolResultPart)]
    assert [result.is_error for result in results] == [False, True]


async def test_nothing_is_left_to_keep_once_a_step_is_committed() -> None:
    agent = agent_of(Recital(calls("meet"), words("done")), Meeting(1))
    async with aclosing(agent.run([QUESTION])) as items:
        async for item in items:
            if isinstance(item, StartStep) and agent.usage.total_tokens:
                break
    assert agent.interrupt("cancelled") == ([], [])


def pending(name: str) -> list[NewMessage]:
    return [NewMessage(Role.ASSISTANT, (ToolCallPart("call_1", name, {}),))]


async def test_a_call_that_may_have_run_is_not_run_again_and_the_model_is_told() -> None:
    tool, model = Meeting(1), Recital(words("I see"))
    agent = agent_of(model, tool)
    agent.recall(pending("meet"), Usage(), step_open=True)
    async with aclosing(agent.run([QUESTION, *pending("meet")])) as items:
        seen = [item async for item in items]
    assert tool.started == 0
    result = model.prompts[0].messages[-1].parts[0]
    assert isinstance(result, ToolResultPart)
    assert result.output["error"] == "interrupted_unknown_effect"
    assert kinds(seen)[:4] == ["tool-output-error", "finish-step", "commit", "start-step"]


async def test_a_call_of_an_idempotent_tool_is_run_again() -> None:
    tool = Again(1)
    agent = agent_of(Recital(words("done")), tool)
    agent.recall(pending("again"), Usage(), step_open=True)
    async with aclosing(agent.run([QUESTION, *pending("again")])) as items:
        seen = [item async for item in items]
    assert tool.started == 1
    assert isinstance(seen[0], ToolOutputAvailable)
    assert isinstance(seen[1], FinishStep)


async def test_a_step_that_readers_have_open_is_not_opened_again() -> None:
    agent = agent_of(Recital(words("done")))
    agent.recall([], Usage(), step_open=True)
    items = await run(agent)
    assert kinds(items)[0] == "text-start"
    assert [item.delta for item in items if isinstance(item, TextDelta)] == ["done"]


A_PAGE = events.Source("https://a.b/", "A page")


def named(items: Sequence[Chunk | Commit]) -> list[SourceUrl]:
    return [item for item in items if isinstance(item, SourceUrl)]


async def test_sources_come_when_all_is_said_and_are_stored_as_they_were_shown() -> None:
    told = [A_PAGE, events.TextDelta("Hel"), events.Source("https://c.d/"), A_PAGE, *words("lo")]
    items = await run(agent_of(Recital(told)))
    texts = ["text-start", "text-delta", "text-delta", "text-end"]
    assert kinds(items) == ["start-step", *texts, "source-url", "source-url", "commit"]
    first, second = SourceUrl("s7-1-1-1", A_PAGE.url, A_PAGE.title), SourceUrl("s7-1-1-2", "https://c.d/")
    assert named(items) == [first, second]
    last = items[-1]
    assert isinstance(last, Commit)
    parts = (TextPart("Hello"), *(SourcePart(one.source_id, one.url, one.title) for one in (first, second)))
    assert last.messages == (NewMessage(Role.ASSISTANT, parts),)


async def test_an_answer_names_a_page_once_in_all_its_steps_and_after_a_takeover() -> None:
    many = [events.Source(f"https://a.b/{n}") for n in range(2 * MAX_SOURCES)]
    model = Recital([A_PAGE, *calls("meet")], [A_PAGE, *many, *words("done")])
    items = await run(agent_of(model, Meeting(1)))
    assert [one.url for one in named(items)] == [A_PAGE.url, *(page.url for page in many[: MAX_SOURCES - 1])]
    again = agent_of(Recital([A_PAGE, many[0], *words("done")]))
    again.recall([NewMessage(Role.ASSISTANT, (SourcePart("s", A_PAGE.url),))], Usage(), step_open=False)
    assert [one.url for one in named(await run(again))] == [many[0].url]


async def test_stopped_in_mid_text_it_keeps_the_sources_so_far() -> None:
    told = [A_PAGE, events.TextDelta("Hel"), events.Source("https://never.told/"), *words("lo")]
    closing, kept = await stopped_after(agent_of(Recital(told)), "text-delta")
    assert closing == [TextEnd("t7-1-1-0"), SourceUrl("s7-1-1-1", A_PAGE.url, A_PAGE.title)]
    assert kept == [NewMessage(Role.ASSISTANT, (TextPart("Hel"), SourcePart("s7-1-1-1", A_PAGE.url, A_PAGE.title)))]

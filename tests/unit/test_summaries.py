"""Summaries: their places, the prompts with them, and the calls that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from backend.chat.models import (
    Message,
    NewMessage,
    NotePart,
    ReasoningPart,
    Role,
    SummaryPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from backend.chat.store.derived.summaries import MAX_ATTEMPTS, Summary
from backend.errors import ProviderError
from executor.agent.agent import Answerer
from executor.llm.events import Finished, ModelEvent, TextDelta, ToolCallEnd, ToolCallStart, UsageSoFar
from executor.llm.history import SUMMARY_CLOSES, SUMMARY_OPENS, to_prompt_messages
from executor.llm.model import Prompt
from executor.llm.scripted import ScriptedModel
from executor.llm.summaries import NoSummary, SummaryCall, request_for_summary
from executor.turns.context import SummaryModel
from executor.turns.history import History
from executor.turns.summary import plan_summary
from tests.unit.test_agent import FixedModel
from tests.unit.test_prompt_rows import row

NONE: frozenset[str] = frozenset()
WORDS = "x" * 276
"""With the frame of a message it has about a hundred tokens."""


def exchange(number: int, text: str = WORDS) -> list[Message]:
    first = 2 * number - 1
    return [row(first, f"t{number}", Role.USER, text), row(first + 1, f"t{number}", Role.ASSISTANT, text)]


def conversation(count: int, summary: Summary | None = None) -> History:
    rows = [one for number in range(1, count + 1) for one in exchange(number)]
    return History(rows, [one.sequence for one in rows], summary)


def made(through: int, *calls: str, text: str | None = "What was said.", attempts: int = 1) -> Summary:
    return Summary(through, text, frozenset(calls), through, attempts)


def by(room: int, makers_room: int | None = None) -> SummaryModel:
    answerer = Answerer("m", FixedModel(), lambda rows: Prompt("", ()))
    return SummaryModel(room, answerer, makers_room or room)


def place(history: History, room: int, begun: Summary | None = None, makers_room: int | None = None) -> int | None:
    plan = plan_summary(history, begun, NONE, by(room, makers_room))
    return None if plan is None else plan.through


def test_a_conversation_is_summarised_when_three_quarters_of_its_room_are_full() -> None:
    assert [place(conversation(count), 2_000) for count in (6, 7)] == [None, None]
    assert place(conversation(8), 2_000) == 12, "the newest quarter stays"
    assert place(conversation(9), 2_000) == 14
    assert place(conversation(8, made(8)), 2_000) is None, "a summary makes room again"
    assert place(conversation(12, made(8)), 2_000) == 20


def test_the_last_exchange_stays_however_long_it_is() -> None:
    rows = [*exchange(1), *exchange(2, WORDS * 8)]
    history = History(rows, [one.sequence for one in rows], None)
    assert place(history, 2_000) is None, "there is little before it"
    assert place(conversation(1), 100) is None
    assert place(conversation(2), 200) == 2


def test_a_history_many_times_as_long_as_the_context_is_summarised_in_parts() -> None:
    assert place(conversation(40), 2_000) == 14, "as much as its model can read"
    assert place(conversation(10), 2_000, makers_room=1_000) == 6, "another model may read less"
    assert place(conversation(10), 2_000, makers_room=50) is None, "a step is too large for it"


def test_a_failed_attempt_is_repeated_at_its_place_and_then_given_up_for_a_step() -> None:
    failed = made(8, text=None)
    assert place(conversation(8), 2_000, failed) == 8
    given_up = replace(failed, attempts=MAX_ATTEMPTS)
    assert place(conversation(8), 2_000, given_up) is None
    assert place(conversation(9), 2_000, given_up) == 14


def with_call(id: str, output: Any = "pending") -> list[Message]:
    call = (
        ReasoningPart("why", "sig"),
        TextPart("I ask"),
        ToolCallPart(id, "work", {}),
        ToolCallPart("c9", "look", {}),
    )
    results = [ToolResultPart(id, "work", output), ToolResultPart("c9", "look", "seen")]
    return [
        row(1, "t1", Role.USER, "begin"),
        replace(row(2, "t1", Role.ASSISTANT), parts=call),
        *(replace(row(3 + n, "t1", Role.TOOL), parts=(result,)) for n, result in enumerate(results)),
    ]


def test_the_calls_of_running_operations_stay_with_their_results_whole() -> None:
    newer = [row(5, "t2", Role.USER, "and?"), row(6, "t2", Role.ASSISTANT, "wait"), row(7, "t3", Role.USER, "now?")]
    rows = [*with_call("c1"), *newer]
    history = History(rows, [one.sequence for one in rows], made(6, "c1"))
    prompt = to_prompt_messages(history.prompt_rows(history.newer))
    assert [message.role for message in prompt] == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.USER]
    assert prompt[0].parts == (TextPart(f"{SUMMARY_OPENS}\nWhat was said.\n{SUMMARY_CLOSES}"),)
    assert [type(part) for part in prompt[1].parts] == [ReasoningPart, ToolCallPart]
    rows[2] = replace(rows[2], parts=(ToolResultPart("c1", "work", "done"),))
    result = to_prompt_messages(history.prompt_rows(history.newer))[2].parts[0]
    assert isinstance(result, ToolResultPart)
    assert result.output == "done", "a later result comes into its place"


def test_a_plan_names_the_calls_that_stay_and_counts_the_messages_that_people_see() -> None:
    rows = [*with_call("c1"), *(replace(one, sequence=one.sequence + 2) for n in (2, 3) for one in exchange(n))]
    rows[-2] = replace(rows[-2], parts=(TextPart(WORDS * 4),))
    plan = plan_summary(History(rows, [], None), None, frozenset({"c1", "other"}), by(560))
    assert plan is not None
    assert (plan.through, plan.calls, plan.messages) == (6, {"c1"}, 4)
    again = plan_summary(History(rows, [], made(4, "c1")), None, NONE, by(360))
    assert again is not None
    assert (again.through, again.messages) == (6, 6)
    assert again.calls == frozenset(), "the operation is over, so its result goes into the next summary"
    assert any(part == ToolResultPart("c1", "work", "pending") for one in again.rows for part in one.parts)


def test_a_notice_is_shown_once_on_a_branch() -> None:
    history = conversation(3, made(4))
    assert history.notice is not None
    assert history.notice.id == "summary-4"
    shown = replace(history.rows[-1], parts=(history.notice, TextPart("x")))
    assert History([*history.rows[:-1], shown], history.places, made(4)).notice is None
    assert conversation(3).notice is None


def test_a_summary_cannot_close_its_tag() -> None:
    (message,) = to_prompt_messages([NewMessage(Role.USER, (SummaryPart("a </conversation_summary> b\0"),))])
    (part,) = message.parts
    assert isinstance(part, TextPart)
    assert part.text.count(SUMMARY_CLOSES) == 1
    assert "\0" not in part.text


async def summary_of(*events: ModelEvent, tokens: int = 100) -> str:
    return await SummaryCall(FixedModel(events), tokens).run(Prompt("", ()))


def end(reason: Any = "stop", usage: Usage = Usage(5, 5)) -> Finished:
    return Finished(reason, usage)


async def test_a_summary_is_the_text_of_the_answer_cut_to_its_length() -> None:
    assert await summary_of(TextDelta(" All "), TextDelta("of it.\n"), end()) == "All of it."
    assert await summary_of(TextDelta("hmm</think>All."), end()) == "All."
    assert len(await summary_of(TextDelta("x" * 900), end("length"))) == 300
    assert len(await summary_of(*[TextDelta("x" * 900)] * 5)) == 300, "the call ends before the model does"


@pytest.mark.parametrize(
    "events",
    [
        [end()],
        [TextDelta("No."), end("content-filter")],
        [TextDelta("Let me look."), ToolCallStart(0, "c", "look"), ToolCallEnd(0), end("tool-calls")],
    ],
)
async def test_a_refusal_a_call_and_an_answer_without_text_are_no_summary(events: Sequence[ModelEvent]) -> None:
    with pytest.raises(NoSummary):
        await summary_of(*events)


async def test_a_call_that_fails_has_cost_what_the_provider_told() -> None:
    class Failing(FixedModel):
        async def stream(self, prompt: Prompt) -> Any:
            yield UsageSoFar(Usage(7))
            raise ProviderError("no", code="provider_error")

    call = SummaryCall(Failing(), 10)
    with pytest.raises(ProviderError):
        await call.run(Prompt("", ()))
    assert call.usage == Usage(7)


async def test_the_scripted_model_remembers_the_beginnings_of_messages() -> None:
    told = [SummaryPart("- The user wrote: “my name is Ada”"), NotePart("a note"), TextPart("/say hi, " + "and " * 20)]
    rows = [NewMessage(Role.USER, tuple(told)), NewMessage(Role.ASSISTANT, (TextPart("hi"),))]
    prompt = Prompt("", to_prompt_messages([*rows, request_for_summary(500)]))
    text = await SummaryCall(ScriptedModel(word_delay=0), 500).run(prompt)
    assert text.splitlines() == [
        "- The user wrote: “my name is Ada”",
        "- The user wrote: “/say hi, and and and and and and and and and and …”",
    ]

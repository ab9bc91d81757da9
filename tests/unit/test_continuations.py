"""Tests of the prompt of a continuation: it always holds the operation's call and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from backend.chat.models import (
    Json,
    Message,
    NewMessage,
    NotePart,
    Role,
    TaskStatus,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from backend.chat.outcomes import Operation, ToolWork
from backend.ids import OperationId, SessionId, TaskId
from executor.agent.agent import Row
from executor.llm.fitting import fit
from executor.llm.history import call_ids, to_prompt_messages
from executor.llm.model import Prompt
from executor.llm.trimming import message_tokens
from executor.turns.continuation import about_operation, with_call

TOKENS = 4_000


def an_operation(result: Json, call_id: str = "call_1", **given: str) -> Operation:
    return Operation(
        id=OperationId("o"), task_id=TaskId("t"), number=1, session_id=SessionId("s"), user_id=None,
        status=TaskStatus.RUNNING, attempt=2, cancel_requested=False, opened=True,
        work=ToolWork(TaskId("turn"), "create_agent", call_id, given), digest="x", result=result, progress=None,
        created_at=datetime.now(UTC), deadline_at=None,
    )  # fmt: skip


def said(role: Role, text: str) -> NewMessage:
    return NewMessage(role, (TextPart(text),))


def a_history(operation: Operation, exchanges: int, *, steps: int = 0) -> list[NewMessage]:
    """Returns the turn with the call, so many longer exchanges after it, the note, and the continuation's steps."""
    rows = [said(Role.USER, "Make an agent."), *operation.messages, said(Role.ASSISTANT, "I have started it.")]
    for n in range(exchanges):
        rows += [said(Role.USER, f"question {n} " + "q" * 800), said(Role.ASSISTANT, f"answer {n} " + "a" * 800)]
    rows.append(NewMessage(Role.USER, (NotePart("The operation behind the call call_1 has ended."),)))
    for n in range(steps):
        call = ToolCallPart(f"step_{n}", "find_library_agent", {"query": "x" * 1_000})
        rows.append(NewMessage(Role.ASSISTANT, (call,)))
        rows.append(NewMessage(Role.TOOL, (ToolResultPart(call.tool_call_id, call.tool_name, "y" * 1_000),)))
    return rows


def fitted_messages(operation: Operation, rows: Sequence[Row], tokens: int = TOKENS) -> Sequence[NewMessage]:
    return fit(about_operation(Prompt("", to_prompt_messages(rows), [], 100), operation, rows), tokens).messages


def check_properties(messages: Sequence[NewMessage]) -> None:
    roles = [message.role for message in messages]
    assert roles[0] is Role.USER
    assert roles[-1] is not Role.ASSISTANT
    assert all((a, b) not in {(Role.USER, Role.USER), (Role.ASSISTANT,) * 2} for a, b in pairwise(roles))
    calls = [part.tool_call_id for m in messages for part in m.parts if isinstance(part, ToolCallPart)]
    results = [part.tool_call_id for m in messages for part in m.parts if isinstance(part, ToolResultPart)]
    assert calls == results
    assert len(calls) == len(set(calls))


def outputs_of(messages: Sequence[NewMessage], tool: str = "create_agent") -> list[Json]:
    parts = (part for message in messages for part in message.parts)
    return [part.output for part in parts if isinstance(part, ToolResultPart) and part.tool_name == tool]


@pytest.mark.parametrize("exchanges", [0, 1, 12, 40])
@pytest.mark.parametrize("steps", [0, 1, 8])
def test_the_call_and_its_result_survive_trimming(exchanges: int, steps: int) -> None:
    operation = an_operation({"type": "agent_saved", "message": "It is in your library."}, description="d")
    messages = fitted_messages(operation, a_history(operation, exchanges, steps=steps))
    check_properties(messages)
    assert outputs_of(messages) == [operation.result]
    assert sum(map(message_tokens, messages)) <= TOKENS


@pytest.mark.parametrize("letter", ["a", "д", "字"])
def test_a_large_call_and_result_are_cut_to_a_part_of_the_context(letter: str) -> None:
    operation = an_operation("it was made " + letter * 90_000, description=letter * 60_000)
    messages = fitted_messages(operation, a_history(operation, 12))
    check_properties(messages)
    (output,) = outputs_of(messages)
    assert isinstance(output, str)
    assert output.startswith("it was made")
    assert sum(map(message_tokens, messages)) <= TOKENS


def test_the_result_is_there_even_if_another_call_has_its_id() -> None:
    operation = an_operation("made")
    rows = a_history(operation, 12)
    call = ToolCallPart("call_1", "search_docs", {})
    other = [
        NewMessage(Role.ASSISTANT, (call,)),
        NewMessage(Role.TOOL, (ToolResultPart("call_1", "search_docs", "x"),)),
    ]
    messages = fitted_messages(operation, [*rows, *other])
    check_properties(messages)
    assert outputs_of(messages) == ["made"]
    assert len(call_ids(messages)) == 2


def test_a_history_that_begins_with_the_note_keeps_its_order() -> None:
    operation = an_operation("made")
    note = a_history(operation, 0)[-1]
    messages = fitted_messages(operation, [note])
    check_properties(messages)
    assert [message.role for message in messages] == [Role.USER, Role.ASSISTANT, Role.TOOL]


def test_a_prompt_that_fits_is_unchanged() -> None:
    operation = an_operation("made")
    rows = a_history(operation, 2)
    assert fitted_messages(operation, rows, 100_000) == to_prompt_messages(rows)
    without = replace(operation, result=None)
    assert fitted_messages(without, rows, 100_000) == to_prompt_messages(rows)


def stored(message: NewMessage, task: str, sequence: int) -> Message:
    at = datetime.now(UTC)
    return Message(SessionId("s"), sequence, TaskId(task), sequence, message.role, message.parts, None, at)


def another_call(tool: str) -> list[NewMessage]:
    """Returns an exchange with a call that has the id of the operation's, as a provider may give it twice."""
    return [
        said(Role.USER, "other"),
        NewMessage(Role.ASSISTANT, (ToolCallPart("call_1", tool, {}),)),
        NewMessage(Role.TOOL, (ToolResultPart("call_1", tool, "other"),)),
        said(Role.ASSISTANT, "fine"),
    ]


@pytest.mark.parametrize("exchanges", [0, 1, 5, 12, 40])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("tokens", [2_000, 4_000, 100_000])
@pytest.mark.parametrize("tool", [None, "search_docs", "create_agent"])
@pytest.mark.parametrize("visible", [True, False])
def test_a_result_reaches_the_model_once(
    exchanges: int, steps: int, tokens: int, tool: str | None, visible: bool
) -> None:
    """`visible`: the turn that made the call is still in the history. `tool`: of an earlier call with the same id."""
    operation = an_operation({"type": "agent_saved", "message": "made " + "y" * 2_000})
    rows = [(message, "turn") for message in a_history(operation, exchanges, steps=steps)]
    note = len(rows) - 1 - 2 * steps
    rows[note:] = [(message, "t") for message, _ in rows[note:]]
    if not visible:
        del rows[1:3]
    rows[:0] = [(message, "another") for message in another_call(tool)] if tool is not None else []
    history = with_call([stored(message, task, n) for n, (message, task) in enumerate(rows, 1)], operation)
    messages = fitted_messages(operation, list(history), tokens)
    check_properties(messages)
    assert sum("made " in str(output) for output in outputs_of(messages)) == 1

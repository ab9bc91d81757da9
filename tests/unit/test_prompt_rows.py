"""The rows that become a prompt: without refused exchanges, and from a place on that moves in large steps."""

from __future__ import annotations

from datetime import UTC, datetime

from backend.chat.models import Message, NotePart, Role, TextPart
from backend.ids import SessionId, TaskId
from executor.turns.history import HISTORY_ROWS, HISTORY_STEP, from_a_fixed_step
from executor.turns.refused import NOTE, without_refused

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def row(sequence: int, task: str, role: Role, text: str = "x") -> Message:
    return Message(SessionId("s"), sequence, TaskId(task), 0, role, (TextPart(text),), None, NOW)


def texts(rows: list[Message]) -> list[str]:
    return ["note" if row.parts == (NotePart(NOTE),) else row.text for row in rows]


CONVERSATION = [
    row(1, "a", Role.USER, "qa"), row(2, "a", Role.ASSISTANT, "ra"), row(3, "b", Role.USER, "qb"),
    row(4, "b", Role.ASSISTANT, "rb"), row(5, "b", Role.TOOL, "tb"), row(6, "c", Role.USER, "qc"),
]  # fmt: skip


def test_a_note_stands_for_a_refused_exchange() -> None:
    assert texts(without_refused(CONVERSATION, {TaskId("b")})) == ["qa", "ra", "note", "qc"]
    assert texts(without_refused(CONVERSATION, {TaskId("a"), TaskId("b")})) == ["note", "note", "qc"]
    assert without_refused(CONVERSATION, set()) == CONVERSATION
    assert without_refused([], {TaskId("a")}) == []


def test_a_refused_question_without_an_answer_goes_and_the_one_that_runs_now_stays() -> None:
    rows = [row(1, "a", Role.USER, "qa"), row(2, "b", Role.USER, "qb"), row(3, "b", Role.ASSISTANT, "rb")]
    assert texts(without_refused(rows, {TaskId("a"), TaskId("b")})) == ["note", "qb", "rb"]


def test_an_exchange_belongs_to_the_task_that_answered_it_last() -> None:
    again = [row(1, "a", Role.USER, "qa"), row(4, "b", Role.ASSISTANT, "rb"), row(5, "c", Role.USER, "qc")]
    assert texts(without_refused(again, {TaskId("a")})) == ["qa", "rb", "qc"]
    assert texts(without_refused(again, {TaskId("b")})) == ["note", "qc"]


def test_the_beginning_of_a_long_history_moves_in_large_steps() -> None:
    short = [row(number, "a", Role.USER) for number in range(7, HISTORY_ROWS)]
    assert from_a_fixed_step(short) == short
    firsts = set()
    for newest in range(5_000, 5_000 + 2 * HISTORY_STEP, 25):
        rows = from_a_fixed_step(
            [row(number, "a", Role.USER) for number in range(newest - HISTORY_ROWS + 1, newest + 1)]
        )
        assert len(rows) > HISTORY_ROWS - HISTORY_STEP
        firsts.add(rows[0].sequence)
    assert firsts == {3_500, 4_000}

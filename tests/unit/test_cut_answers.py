"""Tests of what a model is told about answers that were stopped, or that failed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backend.chat.models import Message, Part, Role, TaskStatus, TextPart, ToolCallPart, ToolResultPart
from backend.ids import SessionId, TaskId
from executor.llm.history import NOTE_OPENS, to_prompt_messages
from executor.turns.cut_answers import with_notes_on_cut_answers


def rows(*said: tuple[str, Role, Part]) -> list[Message]:
    return [
        Message(SessionId("s"), n, TaskId(task), n, role, (part,), None, datetime.now(UTC))
        for n, (task, role, part) in enumerate(said, 1)
    ]


@pytest.mark.parametrize(
    ("status", "words"), [(TaskStatus.CANCELLED, "user stopped"), (TaskStatus.FAILED, "because of an error")]
)
def test_a_text_that_was_cut_off_is_told_with_the_next_message(status: TaskStatus, words: str) -> None:
    history = rows(
        ("a", Role.USER, TextPart("Count.")),
        ("a", Role.ASSISTANT, TextPart("one, two")),
        ("b", Role.USER, TextPart("And?")),
    )
    asked, answer, following = to_prompt_messages(with_notes_on_cut_answers(history, {TaskId("a"): status}))
    assert [message.role for message in (asked, answer, following)] == [Role.USER, Role.ASSISTANT, Role.USER]
    note, question = following.parts
    assert isinstance(note, TextPart)
    assert note.text.startswith(NOTE_OPENS)
    assert words in note.text
    assert question == TextPart("And?")


def test_only_the_end_of_a_stopped_task_is_cut_off() -> None:
    history = rows(
        ("a", Role.USER, TextPart("Look.")),
        ("a", Role.ASSISTANT, TextPart("I look.")),
        ("a", Role.ASSISTANT, ToolCallPart("c", "look", {})),
        ("a", Role.TOOL, ToolResultPart("c", "look", {"type": "error"}, is_error=True)),
        ("b", Role.USER, TextPart("Hello")),
        ("b", Role.ASSISTANT, TextPart("Hello!")),
    )
    assert with_notes_on_cut_answers(history, {TaskId("a"): TaskStatus.CANCELLED}) == history
    assert with_notes_on_cut_answers(history, {}) == history

"""Parts as Postgres stores them, and as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime

from backend.api.message_rows import message_rows
from backend.chat.models import Message, Part, ProviderData, ReasoningPart, Role, TextPart, ToolCallPart
from backend.chat.part_json import parse_parts, parts_json
from backend.ids import SessionId, TaskId

OPAQUE = ProviderData("https://models.example m", {"id": "theirs", "members": {"extra_content": {"a": [1]}}})
PARTS = (ReasoningPart("hm", provider=OPAQUE), ToolCallPart("call_1", "look", {}, OPAQUE), TextPart("a"))


def test_data_of_a_provider_is_stored_with_its_part() -> None:
    assert parse_parts(parts_json(PARTS)) == PARTS


def test_rows_without_such_data_are_read_and_written_as_before() -> None:
    stored = [
        {"type": "reasoning", "text": "hm"},
        {"type": "tool_call", "tool_call_id": "1", "tool_name": "a", "input": 1},
    ]
    assert parts_json(parse_parts(stored)) == stored


def an_answer(*parts: Part) -> Message:
    return Message(
        SessionId("s"), 1, TaskId("t"), 1, Role.ASSISTANT, parts, None, datetime(2026, 11, 30, tzinfo=UTC)
    )  # fmt: skip


def test_clients_see_no_data_of_a_provider() -> None:
    assert message_rows([an_answer(*PARTS)])[0]["parts"] == [
        {"type": "reasoning", "text": "hm"},
        {"type": "tool_call", "tool_call_id": "call_1", "tool_name": "look", "input": {}},
        {"type": "text", "text": "a"},
    ]


def test_clients_do_not_see_reasoning_that_its_provider_hides() -> None:
    hidden = ReasoningPart("", provider=OPAQUE)
    assert [row["parts"] for row in message_rows([an_answer(hidden), an_answer(hidden, TextPart("a"))])] == [
        [{"type": "text", "text": "a"}]
    ]

"""The conversation in a request of OpenAI's API, within its limits."""

from __future__ import annotations

from typing import Any

from backend.api.openai_schemas import MAX_HISTORY, MAX_HISTORY_CHARS, CompletionRequest
from backend.chat.models import Role


def request_of(*messages: tuple[str, str]) -> CompletionRequest:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": role, "content": text} for role, text in messages]}
    return CompletionRequest.model_validate(body)


def test_the_newest_messages_are_kept() -> None:
    many = request_of(*[("user", f"{n}") for n in range(2 * MAX_HISTORY)], ("user", "now"))
    kept = many.history()
    assert len(kept) == MAX_HISTORY
    assert [message.role for message in kept] == [Role.USER] * MAX_HISTORY
    assert kept[-1].parts[0].text == f"{2 * MAX_HISTORY - 1}"  # type: ignore[union-attr]
    long = request_of(("user", "old"), ("assistant", "x" * (MAX_HISTORY_CHARS - 3)), ("user", "new"), ("user", "now"))
    assert [message.role for message in long.history()] == [Role.ASSISTANT, Role.USER]


def test_instructions_may_stand_anywhere() -> None:
    request = request_of(("system", "a"), ("user", "old"), ("tool", "left out"), ("user", "now"), ("developer", "b"))
    assert (request.instructions, request.question) == ("a\n\nb", "now")
    assert [message.role for message in request.history()] == [Role.USER]

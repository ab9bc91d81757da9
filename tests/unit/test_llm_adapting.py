"""Requests adapted to a server that refuses long prompts: what one conversation teaches about the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from backend.chat.models import NewMessage, Role, TextPart, ToolCallPart, ToolResultPart
from executor.llm.adapting import Adapter
from executor.llm.model import Prompt, ToolSpec
from executor.llm.server_memory import Draft
from executor.llm.trimming import message_tokens

TOOLS = (ToolSpec("look", "Looks. " * 100, {"type": "object"}),)
"""About 240 tokens."""
CONTEXT = 4_000
Refuse = Callable[[Draft], str | None]


class Refused(Exception):
    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.body = {"error": {"message": words}}
        self.response = httpx2.Response(400, json=self.body)


class Server:
    """A model's server that refuses a draft if `refuse` returns its words."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
        self._adapter = Adapter("https://models.example m")
        self.drafts: list[Draft] = []

    def body(self, draft: Draft) -> dict[str, Any]:
        return {"messages": [], "draft": draft}

    def concede(self, reason: str, body: dict[str, Any], draft: Draft) -> bool:
        return False

    async def ask(self, prompt: Prompt) -> Draft:
        """Returns the draft that was accepted."""
        draft = self._adapter.draft(prompt)
        async with AsyncExitStack() as stack:
            await self._adapter.ask(draft, self, self._send, Refused, stack)
        return draft

    @asynccontextmanager
    async def _send(self, body: dict[str, Any]) -> AsyncIterator[None]:
        if (words := self._refuse(body["draft"])) is not None:
            raise Refused(words)
        yield


def size(messages: Sequence[NewMessage]) -> int:
    return sum(map(message_tokens, messages))


def telling(counted: Callable[[Draft], int], context: int = CONTEXT) -> Refuse:
    """A server that counts tokens as `counted` says, and tells its numbers."""

    def refuse(draft: Draft) -> str | None:
        used = counted(draft)
        if used + draft.answer_tokens <= context:
            return None
        return f"maximum context length is {context} tokens, but you requested {used} tokens in the messages"

    return refuse


def silent(most: int) -> Refuse:
    """A server that takes so many tokens of messages and tools, and tells no number."""

    def refuse(draft: Draft) -> str | None:
        tools = 240 if draft.prompt.tools else 0
        return "Input is too long for requested model." if size(draft.prompt.messages) + tools > most else None

    return refuse


def user(text: str) -> NewMessage:
    return NewMessage(Role.USER, (TextPart(text),))


def called(number: int, words: int = 10) -> list[NewMessage]:
    call = ToolCallPart(f"call_{number}", "look", {"at": "x" * words})
    result = ToolResultPart(call.tool_call_id, call.tool_name, f"seen {number}")
    return [NewMessage(Role.ASSISTANT, (call,)), NewMessage(Role.TOOL, (result,))]


def chat(exchanges: int, words: int = 600) -> list[NewMessage]:
    rows: list[NewMessage] = []
    for number in range(exchanges):
        rows += [user(f"question {number}"), NewMessage(Role.ASSISTANT, (TextPart("w" * words),))]
    return [*rows, user("the newest question")]


async def test_text_that_the_server_counts_otherwise_shortens_no_other_conversation() -> None:
    def counted(draft: Draft) -> int:
        odd = any("odd" in str(message) for message in draft.prompt.messages)
        return size(draft.prompt.messages) * (6 if odd else 1) + 240

    server = Server(telling(counted))
    await server.ask(Prompt("", [user("odd " * 600)], TOOLS, 500))
    usual = Prompt("", chat(10), TOOLS, 500)
    assert size(usual.messages) > CONTEXT // 2
    assert (await server.ask(usual)).prompt.messages == usual.messages


@pytest.mark.parametrize("refuse", [telling(lambda draft: size(draft.prompt.messages) + 240), silent(1_500)])
async def test_a_conversation_that_cannot_be_shortened_takes_tools_from_no_other(
    refuse: Refuse, caplog: pytest.LogCaptureFixture
) -> None:
    """The input of a call stays whole, so nothing but leaving out the tools is left."""
    server = Server(lambda draft: refuse(draft) if draft.prompt.tools else None)
    prompt = Prompt("", [user("go"), *called(1, words=20_000)], TOOLS, 500)
    assert not (await server.ask(prompt)).prompt.tools
    assert "answers are made without them" not in caplog.text
    another = await server.ask(Prompt("", [user("hello"), *called(2), user("again")], TOOLS, 500))
    assert another.prompt.tools
    assert another.form.name == "OWN"
    same = [*prompt.messages, user("and now?")]
    assert server._adapter.draft(Prompt("", same, TOOLS, 500)).form.name == "OWN"


@pytest.mark.parametrize("refuse", [telling(lambda draft: 600 if draft.prompt.tools else 10, context=700), silent(200)])
async def test_tools_that_leave_no_room_for_any_conversation_are_remembered(refuse: Refuse) -> None:
    server = Server(refuse)
    tools = (ToolSpec("look", "Looks. " * 400, {"type": "object"}),)
    assert not (await server.ask(Prompt("", [user("hello")], tools, 400))).prompt.tools
    second = await server.ask(Prompt("", [user("another")], tools, 400))
    assert (second.prompt.tools, second.tries) == ([], 1)


async def test_the_little_that_is_left_of_one_conversation_is_no_limit_for_others() -> None:
    server = Server(silent(6_000))
    large = NewMessage(Role.ASSISTANT, (ToolCallPart("c", "look", {"at": "x" * 40_000}),))
    result = NewMessage(Role.TOOL, (ToolResultPart("c", "look", "seen"),))
    accepted = await server.ask(Prompt("", [user("go"), large, result, user("Thanks!")], TOOLS, 500))
    assert size(accepted.prompt.messages) < 100
    usual = Prompt("", chat(10), TOOLS, 500)
    assert (await server.ask(usual)).prompt.messages == usual.messages


@pytest.mark.parametrize("refuse", [silent(3_000), silent(1_200), telling(lambda d: size(d.prompt.messages), 1_200)])
async def test_the_call_that_a_continuation_is_about_is_never_cut_out(refuse: Refuse) -> None:
    server = Server(refuse)
    about = called(1)
    rows = [user("make it"), *about, *chat(20), *called(2), user("The operation behind call_1 has ended.")]
    for _ in range(2):
        draft = await server.ask(Prompt("", rows, TOOLS, 300, kept_call=about))
        found = [part for message in draft.prompt.messages for part in message.parts]
        assert "seen 1" in [part.output for part in found if isinstance(part, ToolResultPart)]
        assert size(draft.prompt.messages) < size(rows) / 2

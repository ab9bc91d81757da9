"""Requests adapted to a server that refuses long prompts: what one conversation teaches about the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from backend.chat.models import FilePart, NewMessage, PromptFile, Role, TextPart, ToolCallPart, ToolResultPart
from backend.files.kinds import WHOLE, Kind
from backend.ids import FileId
from executor.llm.adapting import Adapter
from executor.llm.files import kinds_of_files
from executor.llm.model import Prompt, ToolSpec
from executor.llm.server_memory import Draft
from executor.llm.trimming import message_tokens

TOOLS = (ToolSpec("look", "Looks. " * 100, {"type": "object"}),)
"""About 240 tokens."""
CONTEXT = 4_000
Refuse = Callable[[Draft], str | None]


class Refused(Exception):
    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.body = {"error": {"message": words}}
        self.response = httpx2.Response(status, json=self.body)


class Server:
    """A model's server that refuses a draft if `refuse` returns its words."""

    def __init__(self, refuse: Refuse, status: int = 400) -> None:
        self._refuse, self._status = refuse, status
        self._adapter = Adapter("https://models.example m")
        self.drafts: list[Draft] = []

    def body(self, draft: Draft) -> dict[str, Any]:
        return {"messages": [], "draft": draft}

    def concede(self, reason: str, body: dict[str, Any], draft: Draft) -> bool:
        return False

    def known_kinds(self) -> frozenset[Kind]:
        """Returns the kinds of files that the model may be sent, as far as is known."""
        return WHOLE - self._adapter.refused_kinds()

    async def ask(self, prompt: Prompt) -> Draft:
        """Returns the draft that was accepted."""
        draft = self._adapter.draft(prompt)
        async with AsyncExitStack() as stack:
            await self._adapter.ask(draft, self, self._send, Refused, stack)
        return draft

    @asynccontextmanager
    async def _send(self, body: dict[str, Any]) -> AsyncIterator[None]:
        if (words := self._refuse(body["draft"])) is not None:
            raise Refused(words, self._status)
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


def with_files() -> Prompt:
    kinds = {"image/png": "p.png", "application/pdf": "d.pdf"}
    files = [PromptFile(FilePart(FileId(name), kind, name, 9_000), 10, data=b"x") for kind, name in kinds.items()]
    return Prompt("", [NewMessage(Role.USER, (*files, TextPart("look")))])


@pytest.mark.parametrize(
    ("refused", "words", "tries"),
    [
        ({Kind.PDF}, {Kind.PDF: "Invalid value: 'file'. Supported values are: 'text', 'image_url'."}, 2),
        ({Kind.IMAGE}, {Kind.IMAGE: "image_url is only supported by certain models"}, 2),
        ({Kind.IMAGE, Kind.PDF}, dict.fromkeys(Kind, "this is not a multimodal model"), 3),
        ({Kind.IMAGE, Kind.PDF}, dict.fromkeys(Kind, "messages[1].content must be a string"), 2),
        ({Kind.PDF}, {Kind.PDF: "unsupported content[].type"}, 2),
    ],
)
async def test_a_model_that_refuses_one_kind_of_files_still_gets_the_other(
    refused: set[Kind], words: dict[Kind, str], tries: int
) -> None:
    asked: list[frozenset[Kind]] = []

    def refuse(draft: Draft) -> str | None:
        asked.append(kinds_of_files(draft.prompt.messages))
        return next((words[kind] for kind in words if kind in asked[-1]), None)

    server = Server(refuse)
    for number in (tries, tries + 1):  # the second call makes one request
        assert kinds_of_files((await server.ask(with_files())).prompt.messages) == {Kind.IMAGE, Kind.PDF} - refused
        assert len(asked) == number


async def test_a_refusal_without_a_reason_costs_the_files_of_that_prompt_alone() -> None:
    server = Server(lambda draft: "bad request" if kinds_of_files(draft.prompt.messages) else None)
    messages = (await server.ask(with_files())).prompt.messages
    assert not kinds_of_files(messages)
    assert server.known_kinds() == WHOLE


async def test_a_prompt_above_the_tokens_of_a_minute_is_cut_and_one_that_must_wait_is_not() -> None:
    """Groq: 413 whenever prompt and answer together have more tokens than a minute allows."""
    rows = [NewMessage(Role.USER, (TextPart("word " * 4_000),)), NewMessage(Role.ASSISTANT, (TextPart("so " * 4_000),))]
    prompt = Prompt("", [*rows, NewMessage(Role.USER, (TextPart("and now?"),))], max_output_tokens=4_000)

    def refuse(draft: Draft) -> str | None:
        asked = size(draft.prompt.messages) + draft.answer_tokens
        return f"tokens per minute (TPM): Limit 6000, Requested {asked}" if asked > 6_000 else None

    accepted = await Server(refuse, 413).ask(prompt)
    assert accepted.answer_tokens >= 1_000
    assert size(accepted.prompt.messages) > 1_000
    with pytest.raises(Refused):
        await Server(lambda draft: "(TPM): Limit 6000, Used 5000, Requested 2000", 429).ask(prompt)

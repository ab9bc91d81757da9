"""Conversations with tools at providers that refuse a history which is not theirs (`tests/fakes/strict_server.py`)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from backend.chat.models import NewMessage, Role, TextPart, ToolResultPart
from backend.chat.part_json import parse_parts, parts_json
from backend.config import Settings
from executor.agent.response import Response
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt, ToolSpec
from executor.llm.retrying import ModelCallLimits
from tests.fakes.running import bodies_of, fake_server
from tests.speed import limit

QUICK = ModelCallLimits(connect=limit(5), silence=limit(5), no_event=limit(5), backoff=0.01, attempts=1)
TOOLS = (ToolSpec("look", "Looks", {"type": "object", "properties": {"at": {"type": "string"}}}),)
PATHS = {
    "deepseek": "/deepseek/v1",
    "kimi": "/kimi/v1",
    "gemini": "/gemini/v1beta/openai",
    "mistral": "/mistral/v1",
    "openrouter": "/openrouter/v1",
    "litellm": "/litellm/v1",
    "unsigned": "/unsigned",
    "responses": "/responses/v1",
}
QUESTION = (
    '/think deep thought\n/say Looking.\n/tool look {"at":"x"}\n/tool look {"at":"y"}\n/then\n/think more\n/say Done'
)


@pytest.fixture(scope="session")
async def url() -> AsyncIterator[str]:
    async with fake_server("strict") as url:
        yield url


@asynccontextmanager
async def opened(url: str, provider: str) -> AsyncIterator[Model]:
    from executor.llm.anthropic import open_anthropic  # imported by the worker that runs these tests
    from executor.llm.openai import open_openai

    settings, name = Settings(chat_api_key="k", chat_base_url=url + PATHS[provider]), f"{provider}-model"
    opening = (
        open_anthropic(settings, name, QUICK)
        if provider == "unsigned"
        else open_openai(settings, name, QUICK, responses=provider == "responses")
    )
    async with opening as model:
        yield model


@dataclass
class Talk:
    """A session whose rows go through the JSON that Postgres stores."""

    rows: list[NewMessage] = field(default_factory=list)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    responses: int = 0

    async def ask(self, model: Model, question: str) -> str:
        """Runs a turn as the agent does. Returns the last text."""
        self.rows.append(NewMessage(Role.USER, (TextPart(f"{self.mark}\n{question}"),)))
        while True:
            response = await self.respond(model)
            if not response.calls:
                return "".join(part.text for part in self.rows[-1].parts if isinstance(part, TextPart))
            for call in response.calls:
                output = {"type": "seen", "message": "a result"}
                self._store(NewMessage(Role.TOOL, (ToolResultPart(call.tool_call_id, call.tool_name, output),)))

    async def respond(self, model: Model) -> Response:
        self.responses += 1
        assert self.responses < 20
        response = Response(f"9-1-{self.responses}", set())
        prompt = Prompt("Be kind.", to_prompt_messages(self.rows), TOOLS, 100)
        async with asyncio.timeout(limit(30)), aclosing(model.stream(prompt)) as events:
            async for event in events:
                response.take(event)
        if message := response.message():
            self._store(message)
        return response

    def _store(self, message: NewMessage) -> None:
        self.rows.append(NewMessage(message.role, parse_parts(orjson.loads(orjson.dumps(parts_json(message.parts))))))


@pytest.mark.parametrize("provider", PATHS)
async def test_turns_with_tools_are_accepted_one_after_the_other(url: str, provider: str) -> None:
    talk = Talk()
    async with opened(url, provider) as model:
        for _ in range(2):
            assert await talk.ask(model, QUESTION) == "Done"
        assert await talk.ask(model, "/say And now?") == "And now?"
    asked = 5 + (provider == "mistral")  # which refuses stream_options once
    assert len(await bodies_of(url, talk.mark)) == asked, "nothing was refused"


async def test_a_conversation_is_continued_on_seven_other_models(url: str) -> None:
    talk = Talk()
    async with AsyncExitStack() as stack:
        models = [await stack.enter_async_context(opened(url, provider)) for provider in PATHS]
        for model in [*models, models[0], models[2], models[-1]]:
            talk.responses = 0
            assert await talk.ask(model, QUESTION) == "Done"


@pytest.mark.parametrize("provider", PATHS)
async def test_a_turn_after_an_interrupted_one_is_accepted(url: str, provider: str) -> None:
    talk = Talk()
    async with opened(url, provider) as model:
        talk.rows.append(NewMessage(Role.USER, (TextPart(f"{talk.mark}\n{QUESTION}"),)))
        response = await talk.respond(model)
        call = response.calls[0]
        talk.rows.append(NewMessage(Role.TOOL, (ToolResultPart(call.tool_call_id, call.tool_name, "seen"),)))
        assert await talk.ask(model, "/say Again") == "Again"


@pytest.mark.parametrize("provider", PATHS)
async def test_a_history_that_is_refused_all_the_same_is_sent_as_text(url: str, provider: str) -> None:
    talk = Talk()
    async with opened(url, provider) as model:
        assert await talk.ask(model, QUESTION) == "Done"
        assert await talk.ask(model, "/never\n/say Alive") == "Alive"
        before = len(await bodies_of(url, talk.mark))
        assert await talk.ask(model, "/never\n/say Still") == "Still"
    assert len(await bodies_of(url, talk.mark)) == before + 1, "the form is remembered"


@pytest.mark.parametrize("provider", PATHS)
async def test_rows_of_an_older_version_are_accepted(url: str, provider: str) -> None:
    """They have neither ids nor data of a provider."""
    talk = Talk()
    async with opened(url, provider) as model:
        assert await talk.ask(model, QUESTION) == "Done"
        talk.rows = [NewMessage(row.role, parse_parts(_older(parts_json(row.parts)))) for row in talk.rows]
        assert await talk.ask(model, QUESTION) == "Done"


def _older(parts: Sequence[Any]) -> list[Any]:
    return [{name: value for name, value in part.items() if name != "provider"} for part in parts]

"""What a model gets of a request to OpenAI's API: the client's conversation and instructions.

A file of its own, so that no other executor takes the turns.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.fakes.running import fake_server
from tests.integration.running_api import new_id, new_user, running_api, token
from tests.integration.test_openai_api import chunks_of, client_of, text_of
from tests.plain_http import http_client


@pytest.fixture(scope="module")
async def model_url() -> AsyncIterator[str]:
    async with fake_server("openai") as url:
        yield url


@pytest.mark.parametrize("stream", [True, False])
async def test_the_model_gets_the_conversation_and_the_instructions_of_the_client(
    postgres_dsn: str, redis_dsn: str, model_url: str, stream: bool
) -> None:
    provider = {
        "chat_provider": "openai",
        "chat_base_url": f"{model_url}/v1",
        "chat_api_key": "k",
        "chat_model": "m",
        "ask_user": "always",
    }
    mark = new_id()
    conversation = [
        {"role": "system", "content": f"Speak like a pirate. {mark}"},
        {"role": "user", "content": "What is two and two?"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": [{"type": "text", "text": "/say And "}, {"type": "text", "text": "three"}]},
    ]
    async with running_api(postgres_dsn, redis_dsn, **provider) as api, client_of(api, token(new_user())) as client:
        if stream:
            assert text_of(await chunks_of(client, messages=conversation)) == "And three"
        else:
            whole = await client.chat.completions.create(model="copilot", messages=conversation)  # type: ignore[arg-type]
            assert whole.choices[0].message.content == "And three"
    async with http_client() as http:
        requests = [one["body"] for one in (await http.get(f"{model_url}/requests")).json()]
    (request,) = [one for one in requests if mark in json.dumps(one)]  # no request for a title
    assert "ask_user" not in json.dumps(request["tools"])
    system, *rest = request["messages"]
    assert system["content"].endswith(f"\n\nSpeak like a pirate. {mark}")
    assert [(one["role"], one["content"]) for one in rest] == [
        ("user", "What is two and two?"),
        ("assistant", "Four."),
        ("user", "/say And three"),
    ]

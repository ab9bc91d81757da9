"""A conversation that goes on at other providers, all the way: posted, stored, and read again by the executor."""

from __future__ import annotations

import json

from tests.fakes.running import fake_server
from tests.integration.running_api import running_api

STRICT = {
    "deepseek": "/deepseek/v1",
    "gemini": "/gemini/v1beta/openai",
    "mistral": "/mistral/v1",
    "unsigned": "/unsigned",
    "openrouter": "/openrouter/v1",
    "responses": "/responses/v1",
}
PROVIDERS = {"unsigned": "anthropic", "responses": "openai-responses"}


async def test_a_conversation_with_tools_and_reasoning_goes_on_at_other_providers(
    postgres_dsn: str, redis_dsn: str
) -> None:
    """Each fake refuses histories that its provider's documentation says are refused (`strict_server.py`)."""
    async with fake_server("strict") as url:
        entries = [
            {"id": id, "model": id, "base_url": url + path, "provider": PROVIDERS.get(id, "openai")}
            for id, path in STRICT.items()
        ]
        settings = {"chat_provider": None, "chat_models": json.dumps(entries)}
        async with running_api(postgres_dsn, redis_dsn, **settings) as api:
            session = await api.new_session()
            page = '/tool get_doc_page {"path": "x"}'
            question = f"/think deep\n/say Looking.\n{page}\n{page}\n/then\n/think more\n/say Done"
            for id in [*STRICT, "deepseek", "gemini", "responses", "unsigned", "mistral"]:
                told = await api.say(session, question, model=id)
                metadata = told.chunks[-1]["messageMetadata"]
                assert (metadata["status"], metadata["model"]) == ("completed", id)
                assert told.text == "Looking.Done"
                reasoning = [part["text"] for part in told.parts if part["type"] == "reasoning"]
                assert reasoning == ["deep", "more"]

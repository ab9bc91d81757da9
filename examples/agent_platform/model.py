"""The language model of the block AI Text Generator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from examples.agent_platform.blocks.block import BlockFailed, TextModel
from examples.agent_platform.options import PlatformOptions

SECONDS = 120.0
MAX_ANSWER = 100_000  # characters
_SHOWN = 40  # words


class ScriptedModel:
    """Answers by a script, always the same to the same text, so that agents run without any model."""

    async def write(self, instruction: str, text: str) -> str:
        words = (text or instruction).split()
        shown = " ".join(words[:_SHOWN]) + (" …" if len(words) > _SHOWN else "")
        return f"Scripted answer (no model is configured) to “{instruction}”: {shown}"


class ChatModel:
    """An OpenAI-compatible endpoint: POST /chat/completions."""

    def __init__(self, client: httpx2.AsyncClient, options: PlatformOptions) -> None:
        assert options.model_url is not None
        self._client = client
        self._url = f"{options.model_url.rstrip('/')}/chat/completions"
        self._name = options.model_name
        self._headers = {"authorization": f"Bearer {options.model_key}"} if options.model_key else {}

    async def write(self, instruction: str, text: str) -> str:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text or instruction}]
        try:
            answer = await self._client.post(
                self._url, json={"model": self._name, "messages": messages}, headers=self._headers
            )
            if answer.status_code != 200:
                raise BlockFailed(f"the language model answered with status {answer.status_code}")
            content = answer.json()["choices"][0]["message"]["content"]
        except (httpx2.HTTPError, OSError) as error:
            raise BlockFailed(f"the language model did not answer ({type(error).__name__})") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise BlockFailed("the language model's answer has no text") from None
        if not isinstance(content, str):
            raise BlockFailed("the language model's answer has no text")
        return content[:MAX_ANSWER]


@asynccontextmanager
async def open_model(options: PlatformOptions) -> AsyncIterator[TextModel]:
    if options.model_url is None:
        yield ScriptedModel()
        return
    async with httpx2.AsyncClient(timeout=SECONDS, follow_redirects=False, trust_env=False) as client:
        yield ChatModel(client, options)

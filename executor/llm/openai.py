"""Models behind OpenAI's chat completions API, whoever serves it: OpenAI, OpenRouter, vLLM, Ollama and many more."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import openai

from backend.chat.models import Json, NewMessage, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from backend.errors import ConfigError
from executor.llm.events import ModelEvent
from executor.llm.history import call_ids, compact_json, result_text
from executor.llm.model import Prompt
from executor.llm.openai_stream import OpenAIDecoder
from executor.llm.retrying import Patience, stream_events

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_MODELS = {"api.openai.com": "gpt-6-sol", "openrouter.ai": "openrouter/auto"}


@asynccontextmanager
async def open_openai(settings: Settings, name: str, patience: Patience | None = None) -> AsyncIterator[OpenAIModel]:
    """Raises ConfigError without a key (a base URL of one's own may do without), and without a model for such a URL."""
    key, base_url = settings.model_api_key, settings.model_base_url
    if key is None and base_url is None:
        raise ConfigError("CHAT_API_KEY (or OPEN_ROUTER_API_KEY, OPENAI_API_KEY) is not set")
    base_url = base_url or OPENAI_URL
    host = urlsplit(base_url).hostname or ""
    if not name and host not in DEFAULT_MODELS:
        where = settings.model_base_url_setting
        raise ConfigError(f"CHAT_MODEL is not set, and the server of {where} has no usual model")
    patience = patience or Patience()
    async with openai.AsyncOpenAI(
        api_key=key.get_secret_value() if key is not None else "none",
        base_url=base_url,
        max_retries=0,
        timeout=patience.for_http(),
        http_client=openai.DefaultAioHttpClient(),  # the usual one reads each delta through h11 and anyio
    ) as client:
        yield OpenAIModel(client, name or DEFAULT_MODELS[host], patience, official=host == "api.openai.com")


class OpenAIModel:
    """See `Model`. Settings of a request that the server refuses by name are left out from then on."""

    def __init__(self, client: openai.AsyncOpenAI, name: str, patience: Patience, *, official: bool) -> None:
        self.name = name
        self._client = client
        self._patience = patience
        self._limit = "max_completion_tokens" if official else "max_tokens"
        self._extras: dict[str, Json] = {"stream_options": {"include_usage": True}}

    def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        messages, taken = openai_messages(prompt), call_ids(prompt.messages)
        return stream_events(
            lambda: self._connect(prompt, messages), lambda: OpenAIDecoder(taken), openai, self._patience
        )

    @asynccontextmanager
    async def _connect(self, prompt: Prompt, messages: list[dict[str, Json]]) -> AsyncIterator[AsyncIterator[bytes]]:
        async with AsyncExitStack() as stack:
            while True:
                body = self._body(prompt, messages)
                try:
                    create = self._client.chat.completions.with_streaming_response.create(**body)
                    response = await stack.enter_async_context(create)
                except openai.BadRequestError as error:
                    if not self._concede(error, body):
                        raise
                else:
                    break
            yield response.iter_bytes()

    def _body(self, prompt: Prompt, messages: list[dict[str, Json]]) -> dict[str, Any]:
        body = {"model": self.name, "messages": messages, "stream": True, **self._extras}
        body[self._limit] = prompt.max_output_tokens
        if prompt.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
                }
                for tool in prompt.tools
            ]
        return body

    def _concede(self, error: openai.BadRequestError, body: dict[str, Any]) -> bool:
        """Whether the next request will differ in the setting that the server refused. Each is given up once.

        OpenAI's models since GPT-5.6 take tools here only with `reasoning_effort: none`, said out loud; servers that
        follow an older API know no `stream_options`, or the other one of the two names of the limit.
        """
        refused = f"{error.param or ''} {error.message}"
        if "reasoning_effort" in refused and "tools" in body and "reasoning_effort" not in body:
            self._extras["reasoning_effort"] = "none"
        elif "stream_options" in refused and "stream_options" in body:
            del self._extras["stream_options"]
        elif self._limit in refused and self._limit == "max_tokens" and "max_completion_tokens" in refused:
            self._limit = "max_completion_tokens"
        else:
            return False
        logger.info("the model %s refused a setting; going on without it", self.name)
        return True


def openai_messages(prompt: Prompt) -> list[dict[str, Json]]:
    """The prompt's messages in OpenAI's shape. Reasoning is not sent back: no server of this kind asks for it."""
    system = [{"role": "system", "content": prompt.system}] if prompt.system.strip() else []
    return [*system, *(_message(message) for message in prompt.messages)]


def _message(message: NewMessage) -> dict[str, Json]:
    texts = "\n\n".join(part.text for part in message.parts if isinstance(part, TextPart))
    match message.role:
        case Role.USER:
            return {"role": "user", "content": texts}
        case Role.TOOL:
            result = next(part for part in message.parts if isinstance(part, ToolResultPart))
            return {"role": "tool", "tool_call_id": result.tool_call_id, "content": result_text(result)}
        case Role.ASSISTANT:
            calls = [_call(part) for part in message.parts if isinstance(part, ToolCallPart)]
            return {"role": "assistant", "content": texts or None} | ({"tool_calls": calls} if calls else {})


def _call(part: ToolCallPart) -> dict[str, Json]:
    arguments = compact_json(part.input)
    return {"id": part.tool_call_id, "type": "function", "function": {"name": part.tool_name, "arguments": arguments}}

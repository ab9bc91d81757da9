"""Models behind Anthropic's Messages API."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anthropic

from backend.chat.models import Json, Part, ReasoningPart, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from backend.errors import ConfigError
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.events import ModelEvent
from executor.llm.history import call_ids, result_text
from executor.llm.model import Prompt
from executor.llm.retrying import Patience, stream_events

logger = logging.getLogger(__name__)

ANTHROPIC_URL = "https://api.anthropic.com"
DEFAULT_MODEL = "claude-sonnet-5-5"


@asynccontextmanager
async def open_anthropic(
    settings: Settings, name: str, patience: Patience | None = None
) -> AsyncIterator[AnthropicModel]:
    """Raises ConfigError without a key (a base URL of one's own may do without)."""
    key, base_url = settings.chat_api_key or settings.anthropic_api_key, settings.chat_base_url
    if key is None and base_url is None:
        raise ConfigError("ANTHROPIC_API_KEY (or CHAT_API_KEY) is not set")
    patience = patience or Patience()
    async with anthropic.AsyncAnthropic(
        api_key=key.get_secret_value() if key is not None else "none",
        base_url=(base_url or ANTHROPIC_URL).rstrip("/").removesuffix("/v1"),
        max_retries=0,
        timeout=patience.for_http(),
        http_client=anthropic.DefaultAioHttpClient(),  # the usual one reads each delta through h11 and anyio
    ) as client:
        yield AnthropicModel(client, name or DEFAULT_MODEL, patience)


@dataclass(frozen=True, slots=True)
class _Asks:
    """What a request asks for that a model may refuse."""

    thinking: bool = True
    """Adaptive thinking, shown: by default newer models think unseen, and older ones do not know the word."""
    thoughts: bool = True
    """The reasoning of the running exchange, sent back: bound to the model that made it."""


class AnthropicModel:
    """See `Model`."""

    def __init__(self, client: anthropic.AsyncAnthropic, name: str, patience: Patience) -> None:
        self.name = name
        self._client = client
        self._patience = patience
        self._asks = _Asks()

    def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        taken = call_ids(prompt.messages)
        return stream_events(lambda: self._connect(prompt), lambda: AnthropicDecoder(taken), anthropic, self._patience)

    @asynccontextmanager
    async def _connect(self, prompt: Prompt) -> AsyncIterator[AsyncIterator[bytes]]:
        asks = self._asks
        async with AsyncExitStack() as stack:
            while True:
                body = self._body(prompt, asks)
                try:
                    create = self._client.messages.with_streaming_response.create(**body)
                    response = await stack.enter_async_context(create)
                except anthropic.BadRequestError as error:
                    asks = self._concede(error, asks, body["messages"])
                else:
                    break
            yield response.iter_bytes()

    def _body(self, prompt: Prompt, asks: _Asks) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "max_tokens": prompt.max_output_tokens,
            "messages": anthropic_messages(prompt, thoughts=asks.thoughts),
            "stream": True,
        }
        if prompt.system.strip():
            body["system"] = prompt.system
        if asks.thinking:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
        if prompt.tools:
            body["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
                for tool in prompt.tools
            ]
        return body

    def _concede(self, error: anthropic.BadRequestError, asks: _Asks, messages: list[dict[str, Json]]) -> _Asks:
        """What to ask for instead; raises the error when it is about something else, or nothing is left to give up."""
        about_thinking = "thinking" in error.message or "signature" in error.message
        if about_thinking and asks.thoughts and _has_thoughts(messages):
            return replace(asks, thoughts=False)
        if not about_thinking or not asks.thinking:
            raise error
        logger.info("the model %s takes no thinking setting; going on without it", self.name)
        self._asks = replace(self._asks, thinking=False)
        return replace(asks, thinking=False)


def anthropic_messages(prompt: Prompt, *, thoughts: bool = True) -> list[dict[str, Json]]:
    """The prompt's messages in Anthropic's shape: user and assistant alternate, tool results are a user's blocks.

    The last block carries the mark up to which the provider may cache; a conversation reads its own past from there.
    """
    messages: list[dict[str, Json]] = []
    for message in prompt.messages:
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = [block for part in message.parts if (block := _block(part, thoughts)) is not None]
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].extend(blocks)
        else:
            messages.append({"role": role, "content": blocks})
    if messages:
        messages[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    return messages


def _block(part: Part, thoughts: bool) -> dict[str, Json] | None:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ToolCallPart():
            return {"type": "tool_use", "id": part.tool_call_id, "name": part.tool_name, "input": part.input}
        case ToolResultPart():
            result = {"type": "tool_result", "tool_use_id": part.tool_call_id, "content": result_text(part)}
            return result | ({"is_error": True} if part.is_error else {})
        case ReasoningPart() if thoughts and part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        case ReasoningPart() if thoughts and part.signature is not None:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case _:
            return None


def _has_thoughts(messages: list[dict[str, Json]]) -> bool:
    return any(
        block["type"] in ("thinking", "redacted_thinking") for message in messages for block in message["content"]
    )

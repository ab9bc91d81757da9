"""Models behind an API of OpenAI's: chat completions, which OpenRouter, vLLM, Ollama and many others have too, or
responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

import openai

from backend.config import Settings
from backend.files.kinds import Kind
from executor.llm.adapting import Adapter, Dialect
from executor.llm.body_reader import Read, reader_of
from executor.llm.cache_marks import has_marks, mark_openai
from executor.llm.events import ModelEvent
from executor.llm.extras import NO_EXTRAS, NOT_SENT, Extras, known_to_sdk
from executor.llm.history import call_ids
from executor.llm.model import Prompt
from executor.llm.openai_messages import openai_messages
from executor.llm.openai_stream import OpenAIDecoder
from executor.llm.provider_data import made_by
from executor.llm.provider_words import NO_KEY
from executor.llm.refusals import refuses_lists_of_blocks, refuses_parallel_calls, refuses_setting, refuses_system
from executor.llm.responses import ResponsesDialect
from executor.llm.responses_stream import ResponsesDecoder
from executor.llm.retrying import ModelCallLimits, stream_events
from executor.llm.server_memory import Draft

OPENAI_URL = "https://api.openai.com/v1"
_OPTIONAL = ("stream_options", "max_tokens", "max_completion_tokens", "parallel_tool_calls")
_NO_REASONING = (
    "it does not reason with tools here; reasoning_effort is none. With the provider openai-responses it may reason"
)


@asynccontextmanager
async def open_openai(
    settings: Settings,
    name: str,
    limits: ModelCallLimits | None = None,
    extras: Extras = NO_EXTRAS,
    *,
    responses: bool = False,
) -> AsyncIterator[OpenAIModel]:
    """Yields the model with this name. `responses` chooses the Responses API."""
    key, base_url = settings.model_api_key, settings.model_base_url or OPENAI_URL
    host = urlsplit(base_url).hostname or ""
    limits = limits or ModelCallLimits.of(settings.chat_first_byte_timeout, base_url, thinks_silently=responses)
    async with openai.AsyncOpenAI(
        api_key=key.get_secret_value() if key is not None else NO_KEY,
        base_url=base_url,
        default_headers=extras.headers,
        max_retries=0,
        timeout=limits.for_http(),
        http_client=openai.DefaultAioHttpClient(),  # the default passes each delta through h11 and anyio
    ) as client:
        owner, official = made_by(base_url, name), host == "api.openai.com"
        yield OpenAIModel(client, name, limits, owner, official=official, extras=extras, responses=responses)


class OpenAIModel:
    """A `Model`. It adapts its requests to what the server refuses."""

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        name: str,
        limits: ModelCallLimits,
        owner: str,
        *,
        official: bool = False,
        extras: Extras = NO_EXTRAS,
        responses: bool = False,
    ) -> None:
        self.name = name
        self._api = client.responses if responses else client.chat.completions
        self._known = frozenset(signature(type(self._api).create).parameters) - NOT_SENT
        self._decoder = ResponsesDecoder if responses else OpenAIDecoder
        self._limits = limits
        self._secrets = [client.api_key, *extras.secrets]
        self._adapter = Adapter(owner, self._secrets)
        self._dialect: Dialect = (
            ResponsesDialect(name, self._adapter, extras)
            if responses
            else _ChatDialect(name, self._adapter, str(client.base_url), extras, official=official)
        )

    def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        taken = call_ids(prompt.messages)
        draft = self._adapter.draft(prompt)
        return stream_events(
            lambda: self._connect(draft),
            lambda: self._decoder(taken, self._adapter.owner),
            openai,
            self._limits,
            lambda failure: self._adapter.concede_in_stream(failure, draft),
            self._secrets,
        )

    def room(self, prompt: Prompt) -> int | None:
        """See `Model.room`."""
        return self._adapter.room(prompt, prompt.max_output_tokens)

    def refused_kinds(self) -> frozenset[Kind]:
        """See `Model.refused_kinds`."""
        return self._adapter.refused_kinds()

    @asynccontextmanager
    async def _connect(self, draft: Draft) -> AsyncIterator[Read]:
        def send(body: dict[str, Any]) -> Any:
            return self._api.with_streaming_response.create(**known_to_sdk(body, self._known))

        async with AsyncExitStack() as stack:
            response = await self._adapter.ask(draft, self._dialect, send, openai.APIStatusError, stack)
            yield reader_of(response)


class _ChatDialect:
    """See `adapting.Dialect`."""

    def __init__(self, name: str, adapter: Adapter, base_url: str, extras: Extras, *, official: bool) -> None:
        self._name = name
        self._extras = extras
        self._adapter = adapter
        self._base_url = base_url
        self._lengths = ["max_completion_tokens", "max_tokens"] if official else ["max_tokens", "max_completion_tokens"]

    def body(self, draft: Draft) -> dict[str, Any]:
        refuses = self._adapter.refuses
        prompt = draft.prompt
        messages = openai_messages(prompt, self._adapter.owner, draft.form, refuses)
        body: dict[str, Any] = {"model": self._name, "messages": messages, "stream": True}
        if not refuses("stream_options"):
            body["stream_options"] = {"include_usage": True}
        if length := next((name for name in self._lengths if not refuses(name)), None):
            body[length] = draft.answer_tokens
        if prompt.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
                }
                for tool in prompt.tools
            ]
            if refuses("parallel calls") and not refuses("parallel_tool_calls"):
                body["parallel_tool_calls"] = False
        if not refuses("cache marks"):
            body = mark_openai(body, base_url=self._base_url, cache_key=prompt.cache_key)
        body = self._extras.apply(body, draft, refuses, _OPTIONAL)
        return {**body, "reasoning_effort": "none"} if prompt.tools and refuses("reasoning with tools") else body

    def concede(self, reason: str, body: dict[str, Any], draft: Draft) -> bool:
        """See `Dialect.concede`.

        OpenAI's models since GPT-5.6 accept tools here only with an explicit `reasoning_effort: none`. Servers with an
        older API do not know `stream_options`. Some servers want `max_completion_tokens` in place of `max_tokens`.
        """
        remember = self._adapter.remember
        effort = body.get("reasoning_effort")
        asked_for = effort is None or ("tool" in reason and effort != "none")
        if "reasoning_effort" in reason and "tools" in body and asked_for:
            return remember("reasoning with tools", _NO_REASONING, draft)
        if self._extras.concede(reason, body, draft, remember):
            return True
        if "stream_options" in body and ("stream_options" in reason or "include_usage" in reason):
            return remember("stream_options", "it refuses stream_options; its answers may count no tokens", draft)
        marks_refused = "cache_control" in reason or refuses_lists_of_blocks(reason)
        if "prompt_cache_key" in reason or (marks_refused and has_marks(body)):
            return remember("cache marks", "it refuses what helps its cache; its prompts may cost more", draft)
        for name in self._lengths:
            if name in body and refuses_setting(reason, name):
                return remember(name, f"it refuses {name}", draft)
        if refuses_parallel_calls(reason):
            return remember("parallel calls", "it accepts one tool call at a time", draft)
        if "parallel_tool_calls" in body and refuses_setting(reason, "parallel_tool_calls"):
            return remember("parallel_tool_calls", "it refuses parallel_tool_calls", draft)
        if body["messages"][0]["role"] == "system" and refuses_system(reason):
            return remember("system", "it refuses a system message; the text is sent as the user's", draft)
        return False

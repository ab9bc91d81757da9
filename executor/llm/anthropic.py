"""Models behind Anthropic's Messages API."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import signature
from typing import Any

import anthropic

from backend.chat.models import Json, Part, PromptFile, ReasoningPart, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from backend.files.kinds import Kind
from executor.llm.adapting import Adapter
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.body_reader import Read, reader_of
from executor.llm.cache_marks import mark_anthropic
from executor.llm.events import ModelEvent
from executor.llm.extras import NO_EXTRAS, NOT_SENT, Extras, known_to_sdk
from executor.llm.files import UNREADABLE, base64_of, is_audio, is_picture, line_of
from executor.llm.history import call_ids, result_text
from executor.llm.model import Prompt
from executor.llm.own_history import HistoryForm, one_call_each, written_for
from executor.llm.provider_data import made_by
from executor.llm.provider_words import NO_KEY
from executor.llm.refusals import refuses_parallel_calls, refuses_setting, refuses_system
from executor.llm.retrying import ModelCallLimits, stream_events
from executor.llm.server_memory import Draft

ANTHROPIC_URL = "https://api.anthropic.com"
_KNOWN = frozenset(signature(anthropic.resources.messages.AsyncMessages.create).parameters) - NOT_SENT
_OPTIONAL = ("thinking",)
_ABOUT_THINKING = re.compile(r"thinking|signature")
_WANTS_THINKING = re.compile(r"expected [^.]{0,40}thinking|must start with a thinking")


@asynccontextmanager
async def open_anthropic(
    settings: Settings, name: str, limits: ModelCallLimits | None = None, extras: Extras = NO_EXTRAS
) -> AsyncIterator[AnthropicModel]:
    """Yields the model with this name."""
    key, base_url = settings.chat_api_key or settings.anthropic_api_key, settings.chat_base_url or None
    url = (base_url or ANTHROPIC_URL).rstrip("/").removesuffix("/v1")
    secret = key.get_secret_value() if key is not None else NO_KEY
    limits = limits or ModelCallLimits.of(settings.chat_first_byte_timeout, base_url or ANTHROPIC_URL)
    async with anthropic.AsyncAnthropic(
        api_key=secret,
        base_url=url,
        # some servers of this format read this header alone
        default_headers=({"authorization": f"Bearer {secret}"} if base_url is not None else {}) | dict(extras.headers),
        max_retries=0,
        timeout=limits.for_http(),
        http_client=anthropic.DefaultAioHttpClient(),  # the default passes each delta through h11 and anyio
    ) as client:
        yield AnthropicModel(client, name, limits, made_by(url, name), extras)


class AnthropicModel:
    """A `Model`. It adapts its requests to what the server refuses."""

    def __init__(
        self,
        client: anthropic.AsyncAnthropic,
        name: str,
        limits: ModelCallLimits,
        owner: str,
        extras: Extras = NO_EXTRAS,
    ) -> None:
        self.name = name
        self._client = client
        self._limits = limits
        self._secrets = [client.api_key or "", *extras.secrets]
        self._adapter = Adapter(owner, self._secrets)
        self._dialect = _AnthropicDialect(name, self._adapter, extras)

    def stream(self, prompt: Prompt) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        taken = call_ids(prompt.messages)
        draft = self._adapter.draft(prompt)
        return stream_events(
            lambda: self._connect(draft),
            lambda: AnthropicDecoder(taken, self._adapter.owner),
            anthropic,
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
            return self._client.messages.with_streaming_response.create(**known_to_sdk(body, _KNOWN))

        async with AsyncExitStack() as stack:
            response = await self._adapter.ask(draft, self._dialect, send, anthropic.APIStatusError, stack)
            yield reader_of(response)


class _AnthropicDialect:
    """See `adapting.Dialect`."""

    def __init__(self, name: str, adapter: Adapter, extras: Extras) -> None:
        self._name = name
        self._extras = extras
        self._adapter = adapter

    def body(self, draft: Draft) -> dict[str, Any]:
        refuses = self._adapter.refuses
        prompt = draft.prompt
        body: dict[str, Any] = {
            "model": self._name,
            "max_tokens": draft.answer_tokens,
            "messages": anthropic_messages(prompt, self._adapter.owner, draft.form, refuses),
            "stream": True,
        }
        if prompt.system.strip() and not refuses("system"):
            body["system"] = prompt.system
        if not refuses("thinking") and "thinking" not in draft.dropped:
            display = {} if refuses("display") else {"display": "summarized"}
            body["thinking"] = {"type": "adaptive", **display}
        if prompt.tools:
            body["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
                for tool in prompt.tools
            ]
        body = body if refuses("cache_control") else mark_anthropic(body)
        return self._extras.apply(body, draft, refuses, _OPTIONAL)

    def concede(self, reason: str, body: dict[str, Any], draft: Draft) -> bool:
        """See `Dialect.concede`.

        The request asks for adaptive thinking with a summary, since newer models hide it by default. Older models
        refuse adaptive thinking, and some servers refuse the summary alone.
        """
        remember = self._adapter.remember
        thinking = body.get("thinking") or {}
        if self._extras.concede(reason, body, draft, remember):
            return True
        if "display" in thinking and refuses_setting(reason, "display"):
            return remember("display", "it refuses thinking.display; its thinking may stay hidden", draft)
        if thinking and _WANTS_THINKING.search(reason):
            return _drop_thinking(draft)  # the history holds calls that another model made
        if _ABOUT_THINKING.search(reason):
            if draft.form is HistoryForm.OWN and _has_thoughts(body["messages"]):
                draft.form = HistoryForm.PLAIN
                return True
            if thinking and draft.form is not HistoryForm.OWN:
                return _drop_thinking(draft)
            if thinking and "thinking" in reason:
                return remember("thinking", "it refuses the thinking setting", draft)
        if "cache_control" in reason:
            return remember("cache_control", "it refuses cache_control; its prompts are not cached", draft)
        if refuses_parallel_calls(reason):
            return remember("parallel calls", "it accepts one tool call at a time", draft)
        if "system" in body and refuses_system(reason):
            return remember("system", "it refuses a system prompt; the text is sent as the user's", draft)
        return False


def anthropic_messages(
    prompt: Prompt,
    owner: str = "",
    form: HistoryForm = HistoryForm.OWN,
    refuses: Callable[[str], bool] = lambda _: False,
) -> list[dict[str, Json]]:
    """Returns the prompt's messages in Anthropic's shape: roles alternate, tool results are blocks of a user message.

    They are for the model `owner`; `refuses` tells what its server does not accept (`server_memory.py`).
    """
    own = written_for(prompt.messages, owner, form)
    messages: list[dict[str, Json]] = []
    for message in one_call_each(own) if refuses("parallel calls") else own:
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        blocks = [block for part in message.parts if (block := _block(part)) is not None]
        if message.role is Role.TOOL and len(blocks) > 1:  # results must come first, so their files are inside them
            result, *files = blocks
            blocks = [{**result, "content": [{"type": "text", "text": result["content"]}, *files]}]
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].extend(blocks)
        else:
            messages.append({"role": role, "content": blocks})
    if prompt.system.strip() and refuses("system"):
        messages[0]["content"].insert(0, {"type": "text", "text": prompt.system})
    return messages


def _block(part: Part) -> dict[str, Json] | None:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case PromptFile() if is_audio(part):  # this format has no sounds
            return {"type": "text", "text": line_of(part.file, UNREADABLE)}
        case PromptFile():
            source = {"type": "base64", "media_type": part.file.media_type, "data": base64_of(part)}
            if is_picture(part):
                return {"type": "image", "source": source}
            return {"type": "document", "source": source, "title": part.file.filename}
        case ToolCallPart():
            members = part.provider.data.get("members", {}) if part.provider is not None else {}
            call = {"type": "tool_use", "id": part.tool_call_id, "name": part.tool_name, "input": part.input}
            return {**members, **call}
        case ToolResultPart():
            result = {"type": "tool_result", "tool_use_id": part.tool_call_id, "content": result_text(part)}
            return result | ({"is_error": True} if part.is_error else {})
        case ReasoningPart() if part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        case ReasoningPart() if part.signature is not None:
            return {"type": "thinking", "thinking": part.text, "signature": part.signature}
        case ReasoningPart() if (
            part.text and part.provider is not None and part.provider.data.get("field") == "thinking"
        ):
            return {"type": "thinking", "thinking": part.text, **part.provider.data.get("members", {})}
        case _:
            return None


def _drop_thinking(draft: Draft) -> bool:
    """Leaves thinking out of this call. Returns False if that was done already."""
    if "thinking" in draft.dropped:
        return False
    draft.dropped.add("thinking")
    return True


def _has_thoughts(messages: list[dict[str, Json]]) -> bool:
    return any(
        block["type"] in ("thinking", "redacted_thinking") for message in messages for block in message["content"]
    )

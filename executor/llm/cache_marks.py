"""Marks that let a provider keep the beginning of a prompt, so that the next request pays a tenth for it.

OpenAI, DeepSeek, Gemini and llama.cpp do so by themselves, if the beginning stays the same (`trimming.py`). Claude
needs marks, at most four in a request. From each mark it searches at most 20 blocks back for an earlier one. The calls
of one step may be more blocks than that, so the place of the last request's mark is marked again.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from backend.chat.models import Json

MARK = {"type": "ephemeral"}
_CLAUDE = ("claude", "anthropic")


def mark_anthropic(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the request with marks on the tools, the system prompt, and the last two messages that are not the
    model's. The first of these two ended the previous request.
    """
    marked = dict(body)
    if tools := body.get("tools"):
        marked["tools"] = [*tools[:-1], {**tools[-1], "cache_control": MARK}]
    if isinstance(system := body.get("system"), str):
        marked["system"] = [{"type": "text", "text": system, "cache_control": MARK}]
    marked["messages"] = _with_marks(body["messages"], ("user",))
    return marked


def mark_openai(body: dict[str, Any], *, base_url: str, cache_key: str) -> dict[str, Any]:
    """Returns the request with what the server at `base_url` documents.

    OpenAI: `prompt_cache_key`, which sends the requests of one conversation to one machine. OpenRouter: one mark for
    the request. Others that serve Claude (LiteLLM's proxy): marks on blocks.
    """
    host = urlsplit(base_url).hostname or ""
    if host == "api.openai.com":
        return {**body, "prompt_cache_key": cache_key} if cache_key else body
    if not any(word in str(body["model"]).lower() for word in _CLAUDE):
        return body
    if host == "openrouter.ai":
        return {**body, "cache_control": MARK}
    messages = list(body["messages"])
    if messages and messages[0]["role"] == "system":
        messages[0] = _marked(messages[0])
    return {**body, "messages": _with_marks(messages, ("user", "tool"))}


def has_marks(body: dict[str, Any]) -> bool:
    """Returns True if a server that knows no marks may refuse the request for one."""
    return "cache_control" in body or any(
        isinstance(message["content"], list) and any("cache_control" in block for block in message["content"])
        for message in body["messages"]
    )


def _with_marks(messages: list[dict[str, Json]], roles: tuple[str, ...]) -> list[dict[str, Json]]:
    """Marks the last message, and the last one of the roles before the model's newest message."""
    marked = list(messages)
    theirs = [place for place, message in enumerate(messages) if message["role"] in roles]
    model = max((place for place, message in enumerate(messages) if message["role"] == "assistant"), default=0)
    before = [place for place in theirs if place < model]
    for place in {*theirs[-1:], *before[-1:]}:
        marked[place] = _marked(messages[place])
    return marked


def _marked(message: dict[str, Json]) -> dict[str, Json]:
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    if not content:
        return message
    return {**message, "content": [*content[:-1], {**content[-1], "cache_control": MARK}]}

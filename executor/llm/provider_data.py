"""Data that providers want back in later requests. `Collector` takes it from the deltas of OpenAI's format.

Sources (read 2026-11-30): api-docs.deepseek.com/guides/thinking_mode and platform.moonshot.ai/docs/guide/
use-kimi-k2-thinking-model (`reasoning_content`), ai.google.dev/gemini-api/docs/thought-signatures (`extra_content` of
calls), openrouter.ai/docs/use-cases/reasoning-tokens (`reasoning_details`), docs.litellm.ai/docs/reasoning_content
(`thinking_blocks`), docs.mistral.ai/capabilities/reasoning (thinking inside `content`).

Reasoning data: `field` names the member that holds the part's text, or is the tag (`think_tags.py`) behind which it
stood in the content, and `members` are further members of the message.
Call data: `id` is the provider's id, `members` are further members of the call, `function` those of its function.

In the Responses API reasoning is an item of its own. Reasoning data: `item` is the item, `key` its name in the data of
calls. Call data: `id` is the `call_id`, `follows` has the keys of the reasoning right before the call, `phase` is that
of the message before the call. Sources: `openai` 3.54.0, `ResponseReasoningItem`, and
developers.openai.com/api/docs/guides/reasoning.
"""

from __future__ import annotations

import uuid
from typing import Final

from backend.chat.models import Json, ProviderData
from executor.llm.arguments import clean_value
from executor.llm.history import compact_json

MAX_BYTES = 524_288
"""Most data of one response, and most JSON of one part. More is not kept, since a provider refuses cut data."""
IN_CONTENT = "content"
"""The `field` of reasoning that stands inside a list of contents (Mistral)."""
_TEXT_FIELDS: Final = ("reasoning_content", "reasoning")
_LISTS: Final = ("reasoning_details", "thinking_blocks")
_WHOLE: Final = ("extra_content", "reasoning_opaque")
_CALL: Final = frozenset({"index", "id", "type", "function"})
_TOOL_USE: Final = frozenset({"type", "id", "name", "input"})
_FUNCTION: Final = frozenset({"name", "arguments"})
_GROWING: Final = ("text", "summary", "thinking")
"""Members of a list's items that arrive in pieces."""


def made_by(base_url: str, model: str) -> str:
    """Returns the name of a model and its server. A user and a password in the URL are left out."""
    scheme, _, rest = base_url.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]} {model}"


def bounded(owner: str, data: dict[str, Json], most: int = MAX_BYTES) -> ProviderData | None:
    """Returns the data without what Postgres cannot store. None if it is empty, nested too deeply or too large."""
    if not data:
        return None
    try:
        cleaned = clean_value(data)
    except ValueError:
        return None
    return ProviderData(owner, cleaned) if len(compact_json(cleaned)) <= most else None


def thinking_data(owner: str, block: dict[str, Json], signature: str) -> ProviderData:
    """Returns the data of a block of Anthropic's format. DeepSeek, Kimi and MiniMax want unsigned thinking back too."""
    if signature:
        return ProviderData(owner, {})
    members = {"signature": ""} if "signature" in block else {}
    return ProviderData(owner, {"field": "thinking", "members": members})


def tool_use_data(owner: str, block: dict[str, Json]) -> ProviderData | None:
    members = {name: value for name, value in block.items() if name not in _TOOL_USE and value is not None}
    provider_id = block.get("id")
    call: dict[str, Json] = {"id": provider_id} if isinstance(provider_id, str) and provider_id else {}
    return bounded(owner, call | ({"members": members} if members else {})) or bounded(owner, call)


def reasoning_item_data(owner: str, item: dict[str, Json], most: int) -> tuple[str, ProviderData | None]:
    """Returns the key and the data of an item of reasoning. None if it has more than `most` bytes, or no reasoning that
    can be read again: its id alone is no use to a server that stores nothing.

    `status` is left out, since it describes an earlier answer, and so is `content` beside encrypted reasoning: OpenAI
    then accepts none ("array too long. Expected an array with maximum length 0", microsoft/agent-framework-go 783, read
    2026-11-30).
    """
    left_out = ("status", "content") if item.get("encrypted_content") else ("status",)
    kept = {name: value for name, value in item.items() if value is not None and name not in left_out}
    if not (kept.get("encrypted_content") or kept.get("content")):
        return "", None
    own = item.get("id")
    key = own if isinstance(own, str) and own else uuid.uuid4().hex
    return key, bounded(owner, {"key": key, "item": {"summary": [], **kept}}, most)


class Collector:
    """A collector for one response. `read` takes each delta, `read_call` each delta of a call."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._field: str | None = None
        self._members: dict[str, Json] = {}
        self._calls: dict[int, dict[str, Json]] = {}
        self._size = 0

    def read(self, delta: dict[str, Json]) -> None:
        if self._field is None:
            self._field = next((name for name in _TEXT_FIELDS if delta.get(name)), None)
            content = delta.get("content")
            if self._field is None and isinstance(content, list) and any(map(_is_thinking, content)):
                self._field = IN_CONTENT
        for name in _LISTS:
            for item in delta.get(name) or ():
                if isinstance(item, dict) and self._size <= MAX_BYTES:
                    self._size += _add(self._members.setdefault(name, []), item)
        for name in _WHOLE:
            if (value := delta.get(name)) is not None and self._has_room(value):
                self._members[name] = value

    def found_tag(self, opening: str) -> None:
        """Notes that the reasoning stands in the text, behind this tag."""
        self._field = self._field or opening or None

    def read_call(self, index: int, delta: dict[str, Json]) -> None:
        call = self._calls.setdefault(index, {})
        provider_id = delta.get("id")
        if "id" not in call and isinstance(provider_id, str) and provider_id.isprintable() and provider_id:
            call["id"] = provider_id
        function = delta.get("function") or {}
        if delta.keys() <= _CALL and function.keys() <= _FUNCTION:
            return
        for name, source, known in (("members", delta, _CALL), ("function", function, _FUNCTION)):
            further = {key: value for key, value in source.items() if key not in known and value is not None}
            if further and self._has_room(further):
                call.setdefault(name, {}).update(further)

    def of_reasoning(self) -> ProviderData | None:
        """Returns the data that was collected for a part of reasoning, at its end."""
        return bounded(self._owner, {"field": self._field}) if self._field is not None else None

    def of_call(self, index: int) -> ProviderData | None:
        call = self._calls.get(index, {})
        if self._size > MAX_BYTES:
            call = {key: value for key, value in call.items() if key == "id"}
        return bounded(self._owner, call)

    def of_response(self) -> ProviderData | None:
        """Returns the data of the whole response. None if nothing but the text of its reasoning goes back."""
        if not self._members or self._size > MAX_BYTES:
            return None
        field = {"field": self._field} if self._field is not None else {}
        return bounded(self._owner, {**field, "members": self._members}) or self.of_reasoning()

    def _has_room(self, value: Json) -> bool:
        self._size += len(compact_json(value))
        return self._size <= MAX_BYTES


def _is_thinking(item: Json) -> bool:
    return isinstance(item, dict) and item.get("type") == "thinking"


def _add(items: list[dict[str, Json]], item: dict[str, Json]) -> int:
    """Appends the item, or joins it to the last one if both are pieces of one block. Returns the growth in bytes."""
    last = items[-1] if items else None
    if last is None or not _continues(last, item):
        items.append(dict(item))
        return len(compact_json(item))
    growth = 0
    for key, value in item.items():
        if key in _GROWING and isinstance(value, str) and isinstance(last.get(key), str):
            last[key] += value
            growth += len(value)
        elif value is not None and value != last.get(key):
            last[key] = value
            growth += len(compact_json(value))
    return growth


def _continues(last: dict[str, Json], item: dict[str, Json]) -> bool:
    """Returns True if `item` continues `last`.

    Opaque data comes in one item. If items have no index, a signature ends the block.
    """
    if last.get("type") != item.get("type") or not any(key in item for key in (*_GROWING, "signature")):
        return False
    if item.get("id") is not None and last.get("id") is not None and item["id"] != last["id"]:
        return False
    if item.get("index") is not None or last.get("index") is not None:
        return item.get("index") == last.get("index")
    return not last.get("signature")

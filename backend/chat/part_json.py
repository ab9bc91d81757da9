"""The JSON of a message's parts, as Postgres stores it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backend.chat.models import (
    ContextPart,
    DataPart,
    Excerpt,
    FilePart,
    Json,
    MetadataPart,
    NotePart,
    Part,
    ProviderData,
    ReasoningPart,
    SourcePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from backend.ids import FileId


def parts_json(parts: Sequence[Part]) -> list[Json]:
    """Returns one object for each part, with `type` as its first member. Leaves out optional members that are None."""
    return [_part_json(part) for part in parts]


def _part_json(part: Part) -> Json:
    document: dict[str, Json] = {"type": part.type}
    match part:
        case TextPart() | NotePart():
            document |= {"text": part.text}
        case ReasoningPart():
            document |= {"text": part.text, "signature": part.signature, "redacted": part.redacted}
            document |= _provider_json(part.provider)
        case SourcePart():
            document |= {"sourceId": part.source_id, "url": part.url, "title": part.title}
        case ToolCallPart():
            call = {"tool_call_id": part.tool_call_id, "tool_name": part.tool_name, "input": part.input}
            return document | call | _provider_json(part.provider)
        case ToolResultPart():
            call = {"tool_call_id": part.tool_call_id, "tool_name": part.tool_name}
            return document | call | {"output": part.output, "is_error": part.is_error}
        case ContextPart():
            document |= {"url": part.url, "content": part.content}
        case DataPart():
            return document | ({} if part.id is None else {"id": part.id}) | {"data": part.data}
        case FilePart():
            about = {"file_id": part.file_id, "media_type": part.media_type, "filename": part.filename}
            return document | about | {"size": part.size} | ({"pages": part.pages} if part.pages else {})
        case MetadataPart():
            document |= {"metadata": part.metadata}
    return {name: value for name, value in document.items() if value is not None}


def _provider_json(provider: ProviderData | None) -> dict[str, Json]:
    return {} if provider is None else {"provider": {"made_by": provider.made_by, "data": provider.data}}


def _provider(document: dict[str, Any]) -> ProviderData | None:
    provider = document.get("provider")
    return None if provider is None else ProviderData(provider["made_by"], provider["data"])


def _excerpt(document: dict[str, Any]) -> Excerpt | None:
    """Parses the members that a page of history has instead of a long output (`store/history_pages.py`)."""
    if "characters" not in document:
        return None
    return Excerpt(document["beginning"], document["characters"], document["output"])


_PARSERS: dict[str, Callable[[dict[str, Any]], Part]] = {
    "text": lambda d: TextPart(d["text"]),
    "reasoning": lambda d: ReasoningPart(d["text"], d.get("signature"), d.get("redacted"), _provider(d)),
    "source-url": lambda d: SourcePart(d["sourceId"], d["url"], d.get("title")),
    "tool_call": lambda d: ToolCallPart(d["tool_call_id"], d["tool_name"], d["input"], _provider(d)),
    "tool_result": lambda d: ToolResultPart(
        d["tool_call_id"], d["tool_name"], d["output"], d.get("is_error") or False, _excerpt(d)
    ),
    "context": lambda d: ContextPart(d.get("url"), d.get("content")),
    "note": lambda d: NotePart(d["text"]),
    "file": lambda d: FilePart(FileId(d["file_id"]), d["media_type"], d["filename"], d["size"], d.get("pages", 0)),
    "metadata": lambda d: MetadataPart(d["metadata"]),
}
_DATA = "data-"


def parse_parts(documents: Sequence[dict[str, Any]]) -> tuple[Part, ...]:
    """Parses what `parts_json` made. Leaves out parts of an unknown type, which a newer version may have written."""
    return tuple(part for document in documents if (part := _parse_part(document)) is not None)


def _parse_part(document: dict[str, Any]) -> Part | None:
    kind: str = document["type"]
    if kind.startswith(_DATA):
        return DataPart(kind.removeprefix(_DATA), document["data"], document.get("id"))
    return _PARSERS[kind](document) if kind in _PARSERS else None

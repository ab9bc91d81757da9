"""Results of tool calls as servers really send them. The SDK refuses a whole result for one member of one part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from backend.chat.models import is_too_deep
from backend.chat.protocol.files_in_outputs import without_files

_OF_CALLS = frozenset({"content", "structuredContent", "isError", "toolResult"})
_TEXTS = ("name", "title", "description", "mimeType")
_PREFIX = re.compile(r"data:[^,]{0,200};base64,")
_ANY_TYPE = "application/octet-stream"
MAX_WORDS = 4_000
"""Characters of a part of an unknown type, or of an error's data, as the model reads it."""


def repair_result(result: dict[str, Any]) -> None:
    """Repairs, in place, the result of `tools/call`. Does nothing to other results.

    A part whose type is unknown becomes a text. Structured content that is no object is put into one, as `result`: the
    protocol had only objects there, up to 2025-11-25.
    """
    if _OF_CALLS.isdisjoint(result):
        return
    if "toolResult" in result:  # before 2024-11-05
        result.setdefault("structuredContent", result.pop("toolResult"))
    content = result.get("content")
    listed = content if isinstance(content, list) else [] if content is None else [content]
    result["content"] = [_block(one) for one in listed if one is not None]
    structured = result.get("structuredContent")
    if structured is not None and not isinstance(structured, dict):
        result["structuredContent"] = {"result": structured}
    if not isinstance(failed := result.get("isError", False), bool):
        result["isError"] = str(failed).lower() in ("true", "1")
    if not isinstance(result.get("_meta", {}), dict):
        del result["_meta"]


def words_of(value: Any) -> str:
    """Returns a text as it is, and anything else as JSON without files; at most MAX_WORDS characters."""
    if isinstance(value, str):
        return value[:MAX_WORDS]
    if is_too_deep(value):
        return ""
    try:
        return orjson.dumps(without_files(value), default=str).decode()[:MAX_WORDS]
    except TypeError:
        return ""


def _block(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        return _text(given)
    block = {key: value for key, value in given.items() if key not in ("annotations", "_meta")}  # neither is used
    match block.get("type"):
        case "text" if "text" in block:
            return block if isinstance(block["text"], str) else _text(block["text"])
        case "image" | "audio" if isinstance(data := block.get("data"), str):
            return {**block, "data": _PREFIX.sub("", data, count=1), "mimeType": _type_of(block)}
        case "resource" if isinstance(inside := block.get("resource"), dict):
            return {**block, "resource": _resource(inside)}
        case "resource_link" if isinstance(uri := block.get("uri"), str):
            kept = {key: value for key, value in block.items() if key in ("type", "uri") or _is_text(key, value)}
            return {**kept, "name": kept.get("name") or kept.get("title") or uri}
        case _:
            return _text(given)


def _resource(inside: dict[str, Any]) -> dict[str, Any]:
    uri, text, blob = inside.get("uri"), inside.get("text"), inside.get("blob")
    about = {"uri": uri if isinstance(uri, str) else ""}
    about |= {"mimeType": inside["mimeType"]} if isinstance(inside.get("mimeType"), str) else {}
    if isinstance(blob, str) and text is None:
        return {**about, "blob": _PREFIX.sub("", blob, count=1)}
    return {**about, "text": "" if text is None else words_of(text) if not isinstance(text, str) else text}


def _type_of(block: Mapping[str, Any]) -> str:
    named = (block.get(name) for name in ("mimeType", "mime_type", "mediaType", "media_type"))
    return next((one for one in named if isinstance(one, str) and one), _ANY_TYPE)


def _is_text(key: str, value: Any) -> bool:
    return key in _TEXTS and isinstance(value, str)


def _text(value: Any) -> dict[str, Any]:
    return {"type": "text", "text": "" if value is None else words_of(value)}

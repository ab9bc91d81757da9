"""Files within JSON outputs of tools. They are base64, which fills a model's context and which no model can read."""

from __future__ import annotations

import re

from backend.chat.models import Json

MIN_FILE_CHARS = 1_024
"""A text that looks like base64 is taken for a file if it has at least this many characters."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_FILE_MEMBERS = ("data", "blob")
_KINDS = ("image", "audio", "resource", "file", "video")


def without_files(value: Json, longest: int = 0) -> Json:
    """Returns the value with a note in place of each file of more than `longest` characters.

    A file is `data` or `blob` beside its type, and any long text that looks like base64. The value must not be deep.
    """
    if isinstance(value, list):
        return [without_files(item, longest) for item in value]
    if isinstance(value, dict):
        kept: dict[str, Json] = {}
        for key, member in value.items():
            if key in _FILE_MEMBERS and isinstance(member, str) and _is_file(value) and len(member) > longest:
                kept["left_out"] = left_out(member)
            else:
                kept[key] = without_files(member, longest)
        return kept
    if isinstance(value, str) and len(value) > max(longest, MIN_FILE_CHARS) and _looks_like_base64(value):
        return f"[left out: {left_out(value)} of base64]"
    return value


def left_out(base64: str) -> str:
    """Returns the size of a file in words."""
    return f"about {len(base64) * 3 // 4} bytes"


def _is_file(value: dict[str, Json]) -> bool:
    return "mime_type" in value or "mimeType" in value or value.get("type") in _KINDS


def _looks_like_base64(text: str) -> bool:
    """Returns True if a long text has all kinds of characters that base64 has, and no others."""
    if _DATA_URL.match(text):
        return True
    start = text[:MIN_FILE_CHARS].replace("\n", "").replace("\r", "")
    kinds = (r"[a-z]", r"[A-Z]", r"[0-9]")
    if not _BASE64.fullmatch(start) or not all(re.search(kind, start) for kind in kinds):
        return False
    return _BASE64.fullmatch(text.replace("\n", "").replace("\r", "")) is not None

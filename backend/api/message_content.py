"""The content of a message in the protocols of other frontends: a string, or a list of typed parts."""

from __future__ import annotations

from typing import TypeAlias

from backend.chat.models import Json
from backend.errors import UnsupportedPart

Content: TypeAlias = str | list[dict[str, Json]] | None


def text_of(content: Content) -> str:
    """Returns the text of a message. Raises UnsupportedPart if it has other parts, for example images."""
    if isinstance(content, list):
        return "".join(_text_of(part) for part in content)
    return content or ""


def _text_of(part: dict[str, Json]) -> str:
    if part.get("type") in ("text", "refusal") and isinstance(text := part.get(part["type"]), str):
        return text
    raise UnsupportedPart(f"A message may contain only text, not {str(part.get('type'))[:40]!r}.")

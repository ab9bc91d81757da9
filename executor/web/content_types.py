"""The types of pages that can be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message

from executor.web.extraction import Kind
from executor.web.failures import WebFailure

_TEXTS = frozenset(
    {"json", "xml", "javascript", "ecmascript", "x-javascript", "yaml", "x-yaml", "toml", "x-ndjson", "sql"}
    | {"x-sh", "graphql", "rtf", "x-www-form-urlencoded"}
)
"""Subtypes of `application` that are text."""
_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/unknown", "unknown/unknown"})
_TYPE = re.compile(r"\s*[\w!#$&^.+-]{1,60}/[\w!#$&^.+-]{1,60}\s*(;|\Z)", re.ASCII)
_BEGINNING = re.compile(rb"\A(\xef\xbb\xbf)?\s*(<!--.{0,2000}?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S)


@dataclass(frozen=True, slots=True)
class Content:
    """What a server says about a body. `kind` is None if it says nothing, so that the body must tell."""

    media_type: str
    charset: str
    kind: Kind | None


def content_of(header: str) -> Content:
    """Reads Content-Type. Raises WebFailure for a type that cannot be read."""
    message = Message()
    message["content-type"] = header[:500]
    media_type = message.get_content_type() if _TYPE.match(header) else ""
    charset = message.get_param("charset", "")
    name = re.sub(r"[^\w.:-]", "", charset)[:40] if isinstance(charset, str) else ""
    return Content(media_type, name, _kind_of_type(media_type))


def kind_of(content: Content, body: bytes) -> Kind:
    """Returns how to read a body: as its type says, or as its beginning tells. Raises WebFailure."""
    if content.kind is not None:
        return content.kind
    if body.startswith(b"%PDF-"):
        return "pdf"
    if _BEGINNING.match(body[:4_096]):
        return "html"
    if b"\0" in body[:4_096]:
        raise _unsupported(content.media_type or "an unknown type")
    return "text"


def _kind_of_type(media_type: str) -> Kind | None:
    main, _, subtype = media_type.partition("/")
    if media_type in _UNKNOWN:
        return None
    if media_type in ("text/html", "application/xhtml+xml"):
        return "html"
    if media_type == "application/pdf":
        return "pdf"
    if main == "text" or (main == "application" and (subtype in _TEXTS or subtype.endswith(("+json", "+xml")))):
        return "text"
    if subtype.endswith("+xml"):  # image/svg+xml
        return "text"
    raise _unsupported(media_type)


def _unsupported(media_type: str) -> WebFailure:
    return WebFailure("unsupported_type", f"This is {media_type}; only pages, texts, JSON and PDF can be read.")

"""The kinds of files that messages may have, told by their content. What a client or a name says decides nothing."""

from __future__ import annotations

import codecs
from enum import StrEnum
from pathlib import PurePosixPath
from typing import IO

from backend.errors import UnsupportedFile

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"%PDF-": "application/pdf",
    b"ID3\x03": "audio/mpeg",
    b"ID3\x04": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"\xff\xf3": "audio/mpeg",
    b"\xff\xf2": "audio/mpeg",
}
_IN_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_TEXTS = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".html": "text/html",
    ".htm": "text/html",
    ".xml": "text/xml",
}
"""Types of texts by the ending of a file's name. Any other text is text/plain."""
BINARY = "application/octet-stream"
"""The type of a file in a workspace whose content is none of those that messages may have."""
_PIECE = 65_536
ALLOWED = "PNG, JPEG, WebP and GIF pictures, PDF, and text in UTF-8 (CSV, JSON, Markdown and others)"


class Kind(StrEnum):
    IMAGE = "image"
    PDF = "pdf"
    TEXT = "text"
    BINARY = "binary"
    AUDIO = "audio"
    """WAV or MP3. Only tools may answer with it."""


WHOLE = frozenset({Kind.IMAGE, Kind.PDF, Kind.AUDIO})
"""The kinds that a model may take as they are."""


def kind_of(media_type: str) -> Kind:
    """Returns the kind of a type that `media_type_of` returned, or of BINARY."""
    if media_type.startswith("image/"):
        return Kind.IMAGE
    if media_type == BINARY:
        return Kind.BINARY
    if media_type.startswith("audio/"):
        return Kind.AUDIO
    return Kind.PDF if media_type == "application/pdf" else Kind.TEXT


def media_type_of(head: bytes, filename: str) -> str:
    """Returns the type of a file by its first bytes; `filename` only tells kinds of text apart.

    Raises UnsupportedFile if they are no picture, PDF or sound that is known, and no text. An SVG picture is one of
    those: it may hold a program.
    """
    for signature, media_type in _SIGNATURES.items():
        if head.startswith(signature):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] in _IN_RIFF:
        return _IN_RIFF[head[8:12]]
    start = head.lstrip(codecs.BOM_UTF8)[:1_024].lower()
    if b"\x00" in head or b"<svg" in start or filename.lower().endswith(".svg"):
        raise UnsupportedFile
    return _TEXTS.get(PurePosixPath(filename.lower()).suffix, "text/plain")


def require_text(file: IO[bytes]) -> None:
    """Raises UnsupportedFile unless the whole file is text in UTF-8, without NUL characters."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    file.seek(0)
    try:
        while piece := file.read(_PIECE):
            if "\x00" in decoder.decode(piece):
                raise UnsupportedFile
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise UnsupportedFile from None

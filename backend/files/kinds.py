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
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_OFFICE = {
    ".docx": DOCX,
    ".docm": "application/vnd.ms-word.document.macroEnabled.12",
    ".xlsx": XLSX,
    ".xlsm": "application/vnd.ms-excel.sheet.macroEnabled.12",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".xls": "application/vnd.ms-excel",
}
"""Types of Office files by the ending of a name. An upload has the type that its content tells (`child.py`)."""
UNREAD_OFFICE = "application/x-office"
"""The type of what may be an Office file, until `FileReader.office_type` has read it. It is never stored."""
_CONTAINERS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""The signatures of ZIP and of Microsoft's compound files, which Office files are in."""
BINARY = "application/octet-stream"
"""The type of a file in a workspace whose content is none of those that messages may have."""
NOT_UTF8 = "The file is not text in UTF-8. If it is text, save it as UTF-8: spreadsheets call it “CSV UTF-8”."
_PIECE = 65_536


class Kind(StrEnum):
    IMAGE = "image"
    PDF = "pdf"
    OFFICE = "office"
    """A Word document, or a workbook of Excel or OpenDocument. Models read its text."""
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
    if media_type == UNREAD_OFFICE or media_type in _OFFICE.values():
        return Kind.OFFICE
    return Kind.PDF if media_type == "application/pdf" else Kind.TEXT


def media_type_of(head: bytes, filename: str) -> str:
    """Returns the type of a file by its first bytes; `filename` only tells kinds of text apart.

    Returns UNREAD_OFFICE for what may be an Office file. Raises UnsupportedFile if they are no picture, PDF or sound
    that is known, and no text. An SVG picture is one of those: it may hold a program.
    """
    for signature, media_type in _SIGNATURES.items():
        if head.startswith(signature):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] in _IN_RIFF:
        return _IN_RIFF[head[8:12]]
    if head.startswith(_CONTAINERS):
        return UNREAD_OFFICE
    start = head.lstrip(codecs.BOM_UTF8)[:1_024].lower()
    if b"\x00" in head or b"<svg" in start or filename.lower().endswith(".svg"):
        raise UnsupportedFile
    return _TEXTS.get(PurePosixPath(filename.lower()).suffix, "text/plain")


def office_type_of_name(filename: str) -> str:
    """Returns the type of an Office file that a tool has made, or BINARY. Whoever reads it finds out what it is."""
    return _OFFICE.get(PurePosixPath(filename.lower()).suffix, BINARY)


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
        raise UnsupportedFile(NOT_UTF8) from None

"""A file that is on its way into the storage. It is kept in a temporary file, and its first bytes tell its kind."""

from __future__ import annotations

import hashlib
import re
import tempfile
from typing import IO

from backend.config import Settings
from backend.errors import FileTooLarge, UnsupportedFile, ValidationFailed
from backend.files.kinds import Kind, kind_of, media_type_of

MAX_NAME = 200
MAX_AUDIO_BYTES = 4_194_304
_HEAD = 4_096
"""Bytes that tell the kind of a file."""
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean_name(name: str) -> str:
    """Returns the name of a file without folders and control characters."""
    return _ODD.sub("", re.split(r"[/\\]", name)[-1]).strip()[:MAX_NAME].strip() or "file"


class Upload:
    """A file that has arrived, or arrives. Close it. With `audio` it may be a sound."""

    def __init__(self, settings: Settings, filename: str, *, audio: bool = False) -> None:
        self._audio = audio
        self._limits = {
            Kind.IMAGE: settings.max_image_bytes,
            Kind.PDF: settings.max_pdf_bytes,
            Kind.OFFICE: settings.max_pdf_bytes,
            Kind.TEXT: settings.max_text_bytes,
            Kind.AUDIO: MAX_AUDIO_BYTES,
        }
        self.filename = clean_name(filename)
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self.size = 0
        self.media_type = ""
        self._head = b""
        self._hash = hashlib.sha256()

    @property
    def kind(self) -> Kind:
        return kind_of(self.media_type)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, piece: bytes) -> None:
        """Adds bytes. Raises UnsupportedFile, FileTooLarge."""
        self.file.write(piece)
        self._hash.update(piece)
        self.size += len(piece)
        if not self.media_type:
            self._head += piece[:_HEAD]
            if len(self._head) < _HEAD:
                return
            self._tell_kind()
        self._check_size()

    def finish(self) -> None:
        """Checks the whole file. Raises UnsupportedFile, FileTooLarge, ValidationFailed if it is empty."""
        if not self.size:
            raise ValidationFailed("The file is empty.")
        if not self.media_type:
            self._tell_kind()
        self._check_size()
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def _tell_kind(self) -> None:
        media_type = media_type_of(self._head, self.filename)
        if kind_of(media_type) is Kind.AUDIO and not self._audio:
            raise UnsupportedFile
        self.media_type = media_type

    def _check_size(self) -> None:
        most = self._limits[self.kind]
        if self.size > most:
            raise FileTooLarge(f"The file is too large; the limit for this type is {most} bytes.")

"""Files that arrive: as the body of a request, as a part of a form, or as a data URL. They are kept in temporary files.

The first bytes tell the kind of a file, and so its limit; a file that is too large is refused before it has arrived.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from backend.config import Settings
from backend.errors import (
    AppError,
    BadRequest,
    FileTooLarge,
    ForeignFileUrl,
    RequestTimeout,
    ServerBusy,
    ValidationFailed,
)
from backend.files.upload import Upload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

WITHIN = 120.0
"""Seconds in which the whole body must arrive."""
AT_ONCE, OF_ONE = 8, 3
"""Uploads of one process at a time, and those of one caller."""
MAX_DATA_URL_BYTES = 5_242_880
FORM_BYTES = 16_384
"""Bytes of a form beside its file."""
_DATA_URL = re.compile(r"data:[^,]{0,200}?(;base64)?,", re.IGNORECASE)


class Uploads:
    """Counts the files that arrive at this process, because each takes room on its disk."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Counts one more. Raises ServerBusy if that is too many."""
        if self._of.total() >= AT_ONCE or self._of[caller] >= OF_ONE:
            raise ServerBusy
        self._of[caller] += 1
        try:
            yield
        finally:
            self._of[caller] -= 1
            self._of += Counter()  # drops the callers with none


async def receive(settings: Settings, pieces: AsyncIterator[bytes], content_type: str, filename: str) -> Upload:
    """Reads the body of a request: a file, or a form with one. `filename` is used if the form gives none.

    Raises BadRequest, RequestTimeout, UnsupportedFile, FileTooLarge, ValidationFailed.
    """
    kind, options = parse_options_header(content_type)
    is_form = kind == b"multipart/form-data"
    try:
        async with asyncio.timeout(WITHIN):
            if is_form:
                return await _from_form(settings, pieces, options.get(b"boundary", b""), filename)
            return await _from_body(settings, pieces, filename)
    except TimeoutError:
        raise RequestTimeout from None
    except AppError as error:
        error.closes_connection = True  # the rest of the body was not read
        raise


async def _from_body(settings: Settings, pieces: AsyncIterator[bytes], filename: str) -> Upload:
    upload = Upload(settings, filename)
    try:
        async for piece in pieces:
            upload.write(piece)
        upload.finish()
    except BaseException:
        upload.close()
        raise
    return upload


async def _from_form(settings: Settings, pieces: AsyncIterator[bytes], boundary: bytes, filename: str) -> Upload:
    if not boundary:
        raise BadRequest("The form has no boundary.")
    form = _Form(settings, filename)
    try:
        parser = MultipartParser(boundary, form.callbacks)
        async for piece in pieces:
            parser.write(piece)
            form.check_rest(len(piece))
        parser.finalize()
        return form.finished()
    except FormParserError:
        form.close()
        raise BadRequest("The form cannot be read.") from None
    except BaseException:
        form.close()
        raise


class _Form:
    """Takes the one file of a form from its parser. Other fields are ignored."""

    def __init__(self, settings: Settings, filename: str) -> None:
        self._settings = settings
        self._filename = filename
        self._field = b""
        self._value = b""
        self._name: str | None = None
        self._read = 0
        self.upload: Upload | None = None
        self.complete = False
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def check_rest(self, size: int) -> None:
        """Raises BadRequest if the form has too much beside its file."""
        self._read += size
        if self._read - (self.upload.size if self.upload is not None else 0) > 2 * 65_536 + FORM_BYTES:
            raise BadRequest("The form has too many other fields.")

    def finished(self) -> Upload:
        """Returns the checked file. Raises ValidationFailed if there is none."""
        if self.upload is None or not self.complete:
            raise ValidationFailed("The form has no file.")
        self.upload.finish()
        return self.upload

    def close(self) -> None:
        if self.upload is not None:
            self.upload.close()

    def _begin(self) -> None:
        self._name = None

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            if b"filename" in options:
                self._name = options[b"filename"].decode("utf-8", "replace")
        self._field = self._value = b""

    def _open(self) -> None:
        if self._name is not None and self.upload is not None:
            raise ValidationFailed("The form has more than one file; send one in each request.")
        if self._name is not None:
            self.upload = Upload(self._settings, self._name or self._filename)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None and self.upload is not None:
            self.upload.write(data[start:end])

    def _end(self) -> None:
        self.complete = True


def from_data_url(settings: Settings, url: str, filename: str) -> Upload:
    """Returns the file of a data URL. Raises ForeignFileUrl if it is none, FileTooLarge, UnsupportedFile."""
    found = _DATA_URL.match(url)
    if found is None:
        raise ForeignFileUrl
    if (len(url) - found.end()) * 3 // 4 > MAX_DATA_URL_BYTES + 2:
        raise FileTooLarge(
            f"A data URL may have {MAX_DATA_URL_BYTES} bytes; upload larger files to POST /api/chat/files."
        )
    try:
        data = unquote_to_bytes(url[found.end() :])
        if found[1]:
            data = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ForeignFileUrl("The data URL cannot be decoded.") from None
    upload = Upload(settings, filename)
    try:
        upload.write(data)
        upload.finish()
    except BaseException:
        upload.close()
        raise
    return upload

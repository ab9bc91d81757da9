"""The bytes of files: objects in a folder or in a bucket of S3, named by the files' ids.

Source: obstore 0.12 (developmentseed.org/obstore, read 2026-11-30). It is imported on first use: it takes 16 MB.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from backend.config import Settings
from backend.errors import Unavailable
from backend.ids import FileId

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

FOLDER, LOCAL_FOLDER = "copilot-files", "files"
"""The beginning of all names of objects, so that others in a bucket are left alone; and the folder in DATA_DIR."""
PIECE = 262_144
"""Bytes that are read or written at a time."""
STORED_WITHIN, READ_WITHIN = 60.0, 30.0
"""Seconds in which a file is stored, and in which a part of one arrives, or an object is deleted."""
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
_CLIENT: ClientConfig = {"timeout": "60s", "connect_timeout": "5s"}
LISTED = 1_000
"""Objects of one page, and so of one query for their rows."""
_ALL = 1_000_000
logger = logging.getLogger(__name__)


class ObjectGone(Exception):
    """There is no object of this name."""


class FileStorage:
    """The objects of FILES_URL; without one, those of the folder `files` in DATA_DIR."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: ObjectStore | None = None

    async def put(self, id: FileId, file: IO[bytes]) -> None:
        """Stores what `file` has from its beginning. If that fails, there is no object. Raises Unavailable."""
        with _translated():
            async with asyncio.timeout(STORED_WITHIN):
                file.seek(0)
                await self._opened().put_async(_name_of(id), _pieces_of(file))

    async def get(self, id: FileId) -> bytes:
        """Returns the whole object. Raises ObjectGone and Unavailable."""
        with _translated():
            async with asyncio.timeout(READ_WITHIN):
                found = await self._opened().get_async(_name_of(id))
                return bytes(await found.bytes_async())

    async def read(self, id: FileId, start: int, end: int) -> AsyncIterator[bytes]:
        """Opens the bytes from `start` up to and without `end`, and returns them in pieces.

        The object is asked for whole, since some servers ignore ranges and obstore takes that for an error (rclone 1.75
        does). Raises ObjectGone and Unavailable, before the first piece or later.
        """
        with _translated():
            async with asyncio.timeout(READ_WITHIN):
                found = await self._opened().get_async(_name_of(id))
        return _between(_bounded(found.stream(min_chunk_size=PIECE)), start, end)

    async def delete(self, id: FileId) -> None:
        """Deletes an object, if there is one. Raises Unavailable."""
        with _translated(), suppress(FileNotFoundError):  # a bucket does not tell
            async with asyncio.timeout(READ_WITHIN):
                await self._opened().delete_async(_name_of(id))

    async def page(self, after: FileId | None) -> list[tuple[FileId, float]]:
        """Returns the ids and the ages, in seconds, of some objects that come after this one. Raises Unavailable."""
        now = datetime.now(UTC)
        with _translated(), suppress(StopAsyncIteration):
            async with asyncio.timeout(READ_WITHIN):
                offset = None if after is None else _name_of(after)
                size = LISTED if self._settings.files_url.startswith("s3:") else _ALL  # a folder is in no order
                listing = self._opened().list(FOLDER, offset=offset, chunk_size=size)
                found = await anext(aiter(listing))
            names = [(one["path"].rpartition("/")[2], one["last_modified"]) for one in found]
            return [(FileId(name), (now - stored_at).total_seconds()) for name, stored_at in names]
        return []

    def _opened(self) -> ObjectStore:
        if self._store is None:
            self._store = _open(self._settings)
        return self._store


def _name_of(id: FileId) -> str:
    return f"{FOLDER}/{id}"


def _open(settings: Settings) -> ObjectStore:
    from obstore.store import LocalStore, S3Store

    url = urlsplit(settings.files_url)
    if url.scheme != "s3":
        folder = Path(url.path) if url.path else settings.data_dir.expanduser() / LOCAL_FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(prefix=folder.absolute())
    options: dict[str, Any] = {name: values[-1] for name, values in parse_qs(url.query).items()}
    if "virtual_hosted" in options:
        options["virtual_hosted_style_request"] = options.pop("virtual_hosted") == "true"
    if settings.files_access_key is not None and settings.files_secret_key is not None:
        options["access_key_id"] = settings.files_access_key.get_secret_value()
        options["secret_access_key"] = settings.files_secret_key.get_secret_value()
    return S3Store(
        url.netloc,
        prefix=url.path.strip("/") or None,
        client_options={**_CLIENT, "allow_http": options.get("endpoint", "").startswith("http://")},
        retry_config=_RETRIES,
        **options,
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Raises ObjectGone or Unavailable in place of the errors of the store. A reason in the log names no secret."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise ObjectGone from None
    except (BaseError, OSError, TimeoutError) as error:
        logger.warning("the storage of files failed", extra={"error": type(error).__name__})
        raise Unavailable from None


async def _pieces_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


async def _between(pieces: AsyncGenerator[bytes, None], start: int, end: int) -> AsyncIterator[bytes]:
    place = 0
    async with aclosing(pieces):
        async for piece in pieces:
            if wanted := piece[max(0, start - place) : max(0, end - place)]:
                yield wanted
            place += len(piece)
            if place >= end:
                return


async def _bounded(stream: Any) -> AsyncGenerator[bytes, None]:
    with _translated():
        while True:
            try:
                async with asyncio.timeout(READ_WITHIN):
                    piece = await anext(stream)
            except StopAsyncIteration:
                return
            yield bytes(piece)

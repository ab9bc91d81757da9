"""The user's message in a request: its text, and the page's own data and metadata, within their limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from backend.api.message_schemas import UIMessageIn
from backend.chat.models import FILES_PATH, DataPart, Json
from backend.config import Settings
from backend.errors import EmptyMessage, FileNotFound, ForeignFileUrl, MessageTooLong, TooManyParts, UnsupportedPart
from backend.ids import FileId

MAX_FILES = 20
"""Files of one message."""
_FILE_URL = re.compile(
    rf"(https?://[^/?#]+)?{FILES_PATH}([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})([?#].*)?"
)
_DATA_TYPE = re.compile(r"data-([\w.:-]{1,100})")


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file of a message: one that is stored (`id`), or a data URL (`url`)."""

    id: FileId | None
    url: str = ""
    filename: str = ""


@dataclass(frozen=True, slots=True)
class UserMessage:
    """The user's message. `metadata` is None if the page gave none."""

    text: str
    data: tuple[DataPart, ...] = ()
    metadata: Json = None
    files: tuple[GivenFile, ...] = ()


def read_user_message(message: UIMessageIn) -> UserMessage:
    """Reads a message of the AI SDK.

    Raises UnsupportedPart for parts other than text, `file` and `data-*`, ForeignFileUrl, FileNotFound, TooManyParts.
    """
    texts: list[str] = []
    files: list[GivenFile] = []
    data: list[DataPart] = []
    for part in message.parts:
        kind = str(part.get("type"))
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "file" and isinstance(part.get("url"), str):
            files.append(_given(part["url"], part.get("filename")))
        elif (named := _DATA_TYPE.fullmatch(kind)) is not None and "data" in part:
            id = part.get("id")
            data.append(DataPart(named[1], part["data"], id if isinstance(id, str) else None))
        else:
            raise UnsupportedPart(f"A message may contain only text, files and data parts, not {kind[:40]!r}.")
    return UserMessage("".join(texts), tuple(data), message.metadata, _few(files))


def named_files(ids: Sequence[str] | None) -> tuple[GivenFile, ...]:
    """Returns the files with these ids. Raises FileNotFound for what can be no id, and TooManyParts."""
    return _few([_given(f"{FILES_PATH}{id}", None) for id in ids or ()])


def _few(files: Sequence[GivenFile]) -> tuple[GivenFile, ...]:
    if len(files) > MAX_FILES:
        raise TooManyParts
    return tuple(files)


def _given(url: str, filename: Json) -> GivenFile:
    name = filename if isinstance(filename, str) else ""
    if url[:5].lower() == "data:":
        return GivenFile(None, url, name)
    found = _FILE_URL.fullmatch(url)
    if found is None:
        raise ForeignFileUrl if not url.startswith(FILES_PATH) else FileNotFound
    return GivenFile(FileId(found[2]), filename=name)


def check_text(said: UserMessage, settings: Settings) -> UserMessage:
    """Returns `said`; beside files, a blank text is an empty one. Raises EmptyMessage or MessageTooLong."""
    limit = settings.max_message_chars
    if not said.text.strip():
        if not said.files:
            raise EmptyMessage
        said = replace(said, text="")
    if len(said.text) > limit:
        raise MessageTooLong(f"The message is too long; the limit is {limit} characters.")
    if said.data or said.metadata is not None:
        size = len(orjson.dumps([said.metadata, *(part.data for part in said.data)]))
        if size > limit:
            raise MessageTooLong(
                f"The data and metadata of the message are too long; the limit is {limit} bytes of JSON."
            )
    return said

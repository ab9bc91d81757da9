"""The user's message in a request: its text, and the page's own data and metadata, within their limits."""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from backend.api.schemas import UIMessageIn
from backend.chat.models import DataPart, Json
from backend.config import Settings
from backend.errors import EmptyMessage, MessageTooLong, UnsupportedPart

_DATA_TYPE = re.compile(r"data-([\w.:-]{1,100})")


@dataclass(frozen=True, slots=True)
class UserMessage:
    """The user's message. `metadata` is None if the page gave none."""

    text: str
    data: tuple[DataPart, ...] = ()
    metadata: Json = None


def read_user_message(message: UIMessageIn) -> UserMessage:
    """Reads a message of the AI SDK. Raises UnsupportedPart for parts other than text and `data-*`."""
    texts: list[str] = []
    data: list[DataPart] = []
    for part in message.parts:
        kind = str(part.get("type"))
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif (named := _DATA_TYPE.fullmatch(kind)) is not None and "data" in part:
            id = part.get("id")
            data.append(DataPart(named[1], part["data"], id if isinstance(id, str) else None))
        else:
            raise UnsupportedPart(f"A message may contain only text and data parts, not {kind[:40]!r}.")
    return UserMessage("".join(texts), tuple(data), message.metadata)


def checked(said: UserMessage, settings: Settings) -> UserMessage:
    """Returns `said` unchanged. Raises EmptyMessage or MessageTooLong."""
    limit = settings.max_message_chars
    if not said.text.strip():
        raise EmptyMessage
    if len(said.text) > limit:
        raise MessageTooLong(f"The message is too long; the limit is {limit} characters.")
    if said.data or said.metadata is not None:
        size = len(orjson.dumps([said.metadata, *(part.data for part in said.data)]))
        if size > limit:
            raise MessageTooLong(
                f"The data and metadata of the message are too long; the limit is {limit} bytes of JSON."
            )
    return said

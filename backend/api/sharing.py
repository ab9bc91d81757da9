"""The copy of a conversation that a share link shows: texts and sources, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from backend.chat.models import Json
from backend.errors import ConversationTooLarge

MAX_SHARE_BYTES = 2 * 1_048_576
"""The largest number of bytes that a shared copy has as JSON."""


def shared_messages(messages: Sequence[Json]) -> list[Json]:
    """Returns what others may read of UIMessages. Raises ConversationTooLarge.

    Leaves out files, metadata, reasoning, calls of tools with their inputs and outputs, and data of pages.
    """
    shown = [one for message in messages for one in _shown(message)]
    if len(orjson.dumps(shown)) > MAX_SHARE_BYTES:
        raise ConversationTooLarge("The conversation is too large to be shared.")
    return shown


def _shown(message: Json) -> Iterator[Json]:
    """Yields a message, in pieces if it is an answer that took in messages of the user."""
    pieces: list[Json] = []
    for part in message["parts"]:
        kind = part["type"]
        if kind == "text" and part["text"].strip():
            pieces.append({"type": "text", "text": part["text"]})
        elif kind == "source-url":
            pieces.append({"type": "source", "text": part.get("title") or part["url"], "url": part["url"]})
        elif kind == "data-steering":
            if pieces:
                yield {"role": message["role"], "parts": pieces}
                pieces = []
            yield from _shown(part["data"])
    if pieces:
        yield {"role": message["role"], "parts": pieces}

"""The form that AI SDK 7 gives to a message that the running turn has taken in: `steering-message`.

Other clients get `data-steering`, whose `data` is the user's message. AI SDK 6 breaks off a whole stream at a chunk
that it does not know, so clients ask for this one. Source: vercel/ai 7.0.173,
packages/ai/src/ui-message-stream/ui-message-chunks.ts; a part of it is `text` or `file`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import orjson

from backend.chat.models import Json
from backend.chat.protocol.chunks import ascii_json

STEERING_MESSAGES = "steering-message"
"""The word of `accept` that asks for this form."""
_CHUNK = b'{"type":"data-steering"'  # inside a text of a chunk, the quotes would be escaped
_DATA = b"data: "


async def with_steering_messages(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yields blocks of whole frames with steering messages in the SDK's own form.

    A message that a takeover repeats is left out: the SDK does not compare ids, so it would show the message twice.
    """
    sent: set[str] = set()
    async with aclosing(blocks):
        async for block in blocks:
            if _CHUNK not in block:
                yield block
            else:
                yield b"".join(_in_form(frame, sent) for frame in block.split(b"\n\n")[:-1])


def ui_with_steering_messages(messages: Sequence[Json]) -> list[Json]:
    """Returns UI messages whose parts have this form, as clients make them from such a stream."""
    return [{**message, "parts": [_part(part) for part in message["parts"]]} for message in messages]


def _in_form(frame: bytes, sent: set[str]) -> bytes:
    head, found, data = frame.partition(_DATA)
    if not found or not data.startswith(_CHUNK):
        return frame + b"\n\n"
    part = _part(orjson.loads(data))
    if part["id"] in sent:
        return b""
    sent.add(part["id"])
    return head + _DATA + ascii_json(part) + b"\n\n"


def _part(part: Json) -> Json:
    if part["type"] != "data-steering":
        return part
    said = [one for one in part["data"]["parts"] if one["type"] in ("text", "file")]
    return {"type": STEERING_MESSAGES, "id": part["id"], "parts": said}

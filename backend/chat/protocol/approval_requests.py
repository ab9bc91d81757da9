"""The form that AI SDK 6 and 7 give to calls that need an approval: `tool-approval-request`, and parts that wait.

Other clients get the output `operation_started` with `asks`. Old ones refuse the chunk, so clients ask for it. Source:
vercel/ai 6.0.324 and 7.0.173, packages/ai/src/ui/process-ui-message-stream.ts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import orjson

from backend.chat.models import Json
from backend.chat.protocol.chunks import ascii_json

APPROVAL_REQUESTS = "tool-approval-request"
"""The word of `accept` that asks for this form."""
_PENDING = ("operation_started", "operation_pending")
_ASKS = b'"asks":"approval"'  # inside a text of a chunk, the quotes would be escaped
_DATA = b"data: "


async def with_approval_requests(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yields the blocks, which hold whole frames. An output that asks for an approval becomes an approval request."""
    async with aclosing(blocks):
        async for block in blocks:
            if _ASKS not in block:
                yield block
            else:
                yield b"".join(_request(frame) + b"\n\n" for frame in block.split(b"\n\n")[:-1])


def ui_with_approval_requests(messages: Sequence[Json]) -> list[Json]:
    """Returns UI messages whose parts wait for an approval, as clients make them from such a stream."""
    return [{**message, "parts": [_waiting(part) for part in message["parts"]]} for message in messages]


def _request(frame: bytes) -> bytes:
    head, found, data = frame.partition(_DATA)
    if not found or _ASKS not in data:
        return frame
    chunk = orjson.loads(data)
    operation = _operation_in(chunk.get("output"))
    if chunk["type"] != "tool-output-available" or operation is None:
        return frame
    request = {"type": APPROVAL_REQUESTS, "approvalId": operation, "toolCallId": chunk["toolCallId"]}
    return head + _DATA + ascii_json(request)


def _waiting(part: Json) -> Json:
    operation = _operation_in(part.get("output"))
    if operation is None:
        return part
    rest = {name: value for name, value in part.items() if name != "output"}
    return {**rest, "state": "approval-requested", "approval": {"id": operation}}


def _operation_in(output: Json) -> str | None:
    """Returns the operation whose approval an output awaits, or None."""
    if not isinstance(output, dict) or output.get("type") not in _PENDING or output.get("asks") != "approval":
        return None
    return str(output["operation_id"])

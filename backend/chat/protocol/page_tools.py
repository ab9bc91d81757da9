"""Calls of the page's own tools in the form of the AI SDK: not `providerExecuted`, and without an output until the page
gives one. Other clients get the output `operation_started` with `asks`.

Clients call `onToolCall` for such a call, and `addToolOutput` answers it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing

import orjson

from backend.chat.models import Json

PAGE_TOOLS = "page-tools"
"""The word of `accept` that asks for this form."""
_ASKS = b'"asks":"page_tool"'
_CALLS = (b'data: {"type":"tool-input-start"', b'data: {"type":"tool-input-available"')
_BY_SERVER = b',"providerExecuted":true,"dynamic":true}'
_BY_PAGE = b',"dynamic":true}'


async def with_page_tools(frames: AsyncGenerator[bytes, None], names: Collection[str]) -> AsyncGenerator[bytes, None]:
    """Yields the same frames with calls of these tools as the page's own. Each item holds whole frames."""
    marks = [b'"toolName":%b' % orjson.dumps(name) for name in names]
    async with aclosing(frames):
        async for data in frames:
            if _ASKS not in data and not any(mark in data for mark in marks):
                yield data
            elif kept := b"".join(_own(frame, marks) for frame in data.split(b"\n\n")[:-1]):
                yield kept


def ui_with_page_tools(messages: Sequence[Json]) -> list[Json]:
    """Returns UI messages in which calls of the page's tools wait, as clients make them from such a stream."""
    return [{**message, "parts": [_waiting(part) for part in message["parts"]]} for message in messages]


def _own(frame: bytes, marks: Sequence[bytes]) -> bytes:
    data = frame[max(frame.find(b"data: "), 0) :]
    if data.startswith(b'data: {"type":"tool-output-available"') and _ASKS in data:
        return b""
    if data.startswith(_CALLS) and any(mark in data for mark in marks) and frame.endswith(_BY_SERVER):
        return frame.removesuffix(_BY_SERVER) + _BY_PAGE + b"\n\n"
    return frame + b"\n\n"


def _waiting(part: Json) -> Json:
    output = part.get("output")
    if not isinstance(output, dict) or output.get("type") != "operation_pending" or output.get("asks") != "page_tool":
        return part
    rest = {name: value for name, value in part.items() if name not in ("output", "providerExecuted")}
    return {**rest, "state": "input-available"}

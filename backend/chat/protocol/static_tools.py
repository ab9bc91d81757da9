"""Tool parts named by their tool (`tool-create_agent`), for pages whose renderer switches on the part's type.

By default calls are dynamic: clients make `dynamic-tool` parts of them, since they do not know the server's tools.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from backend.chat.models import Json

STATIC_TOOLS = "static-tools"
"""The word of `accept` that asks for static parts."""
DYNAMIC_TOOLS = "dynamic-tools"
"""The word of `accept` that asks for dynamic parts when the server's setting is static ones."""
# The last members of a tool chunk (`chunks.py`), with the end of its frame. No text inside a chunk can look like that.
_DYNAMIC = b',"providerExecuted":true,"dynamic":true}\n\n'
_STATIC = b',"providerExecuted":true}\n\n'


async def with_static_tools(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yields the same frames with static tool calls in place of dynamic ones. Each item holds whole frames."""
    async with aclosing(frames):
        async for data in frames:
            yield data.replace(_DYNAMIC, _STATIC)


def ui_with_static_tools(messages: Sequence[Json]) -> list[Json]:
    """Returns UI messages with static tool parts in place of dynamic ones, as clients make them from such a stream."""
    return [{**message, "parts": [_static(part) for part in message["parts"]]} for message in messages]


def _static(part: Json) -> Json:
    if part["type"] != "dynamic-tool":
        return part
    rest = {name: value for name, value in part.items() if name not in ("type", "toolName")}
    return {"type": f"tool-{part['toolName']}", **rest}

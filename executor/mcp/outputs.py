"""What an MCP tool answered, as one of the responses that clients know."""

from __future__ import annotations

import orjson
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from backend.chat.models import Json
from backend.chat.outputs import is_too_deep
from backend.chat.tool_responses import BlockOutput, ErrorResponse, ToolResponse

MAX_OUTPUT_BYTES = 1_000_000
MAX_INLINE_CHARS = 16_384
"""Of an image or a file, in base64: longer ones are named and left out, a model cannot read them here anyway."""
MAX_ERROR_CHARS = 4_000


def response_of(result: CallToolResult, block_id: str, block_name: str, session_id: str | None) -> ToolResponse:
    """`block_output` with the structured content, else the list of the parts; `error` for a tool's own error, and for
    an output that is too large or no JSON of ours."""
    if result.is_error:
        return failed(_text_of(result) or f"{block_id} failed.", session_id)
    outputs = result.structured_content
    if outputs is None:
        outputs = [_part(block) for block in result.content]
    size = _size_of(outputs)
    if size is None:
        return failed(f"{block_id} answered with JSON that cannot be kept.", session_id)
    if size > MAX_OUTPUT_BYTES:
        message = f"{block_id} answered with {size} bytes; at most {MAX_OUTPUT_BYTES} are taken. Ask it for less."
        return ErrorResponse(message=message, session_id=session_id, error="output_too_large")
    return BlockOutput(
        message=f"{block_id} has answered.",
        session_id=session_id,
        block_id=block_id,
        block_name=block_name,
        outputs=outputs,
    )


def _size_of(outputs: Json) -> int | None:
    """In bytes; None when it cannot be kept: nested too deeply, integers over 64 bits, half of a surrogate pair."""
    try:
        return None if is_too_deep(outputs) else len(orjson.dumps(outputs))
    except TypeError:
        return None


def failed(message: str, session_id: str | None) -> ErrorResponse:
    return ErrorResponse(message=message[:MAX_ERROR_CHARS], session_id=session_id, error="tool_failed")


def _text_of(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def _part(block: ContentBlock) -> Json:
    match block:
        case TextContent():
            return {"type": "text", "text": block.text}
        case ImageContent() | AudioContent():
            return {"type": block.type, "mime_type": block.mime_type, **_inlined("data", block.data)}
        case EmbeddedResource(resource=BlobResourceContents() as file):
            about = {"uri": file.uri, "mime_type": file.mime_type}
            return {"type": "resource", **about, **_inlined("blob", file.blob)}
        case EmbeddedResource(resource=TextResourceContents() as file):
            return {"type": "resource", "uri": file.uri, "mime_type": file.mime_type, "text": file.text}
        case ResourceLink():
            about = {"name": block.name, "description": block.description, "mime_type": block.mime_type}
            return {"type": "resource_link", "uri": block.uri, **about}


def _inlined(member: str, base64: str) -> dict[str, Json]:
    if len(base64) <= MAX_INLINE_CHARS:
        return {member: base64}
    return {"left_out": f"about {len(base64) * 3 // 4} bytes"}

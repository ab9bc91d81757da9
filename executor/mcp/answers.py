"""The response for a tool's result, whose pictures, PDFs, Office files and sounds the conversation keeps as files."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import mimetypes

from mcp_types import AudioContent, BlobResourceContents, CallToolResult, ContentBlock, EmbeddedResource, ImageContent

from backend.chat.models import FilePart
from backend.chat.protocol.tool_responses import ToolResponse
from backend.errors import AppError
from backend.files.kinds import Kind, kind_of
from executor.mcp.failure_responses import masked
from executor.mcp.outputs import response_of
from executor.mcp.server_entry import Server
from executor.tools.context import KeepFile, ToolContext

MOST_FILES = 8
"""Files of one result that are kept."""
KEPT_WITHIN = 30.0
"""Seconds in which all of them are kept. Those that are not kept by then are named and left out."""
_ENDINGS = {"audio/wav": ".wav", "audio/mpeg": ".mp3", "audio/mp3": ".mp3"}
"""Endings that the standard library does not know, or not everywhere."""
logger = logging.getLogger(__name__)


async def answer_of(
    result: CallToolResult, block_id: str, block_name: str, context: ToolContext, server: Server
) -> ToolResponse:
    """Returns the response of `response_of`, and keeps the files of the result first. Needs no time of the call."""
    kept: dict[int, FilePart] = {}
    if context.keep_file is not None and not result.is_error:
        with context.untimed():
            await _keep(result, block_id.rpartition(".")[2], context.keep_file, kept)
    return masked(response_of(result, block_id, block_name, context.session_id, kept), server)


async def _keep(result: CallToolResult, name: str, keep: KeepFile, kept: dict[int, FilePart]) -> None:
    """Adds the files to `kept`."""
    try:
        async with asyncio.timeout(KEPT_WITHIN):
            for place, block in enumerate(result.content):
                if len(kept) < MOST_FILES and (file := _file_of(block)) is not None:
                    data, media_type = file
                    ending = _ENDINGS.get(media_type) or mimetypes.guess_extension(media_type) or ""
                    try:
                        kept[place] = await keep(_bytes_of(data), f"{name}-{place + 1}{ending}")
                    except (AppError, binascii.Error) as error:
                        logger.info("a file of a tool was not kept", extra={"error": type(error).__name__})
    except TimeoutError:
        logger.warning("files of a tool were not kept in time", extra={"tool": name})


def _bytes_of(data: str) -> bytes:
    """Decodes base64, which may have line breaks. Raises binascii.Error."""
    return base64.b64decode("".join(data.split()), validate=True)


def _file_of(block: ContentBlock) -> tuple[str, str] | None:
    """Returns the base64 and the type of a file that can be kept. What it really is, its content tells later."""
    match block:
        case ImageContent() | AudioContent():
            return block.data, block.mime_type
        case EmbeddedResource(resource=BlobResourceContents(blob=blob, mime_type=str(media_type))):
            return (blob, media_type) if kind_of(media_type) not in (Kind.TEXT, Kind.BINARY) else None
        case _:
            return None

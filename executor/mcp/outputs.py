"""Conversion of an MCP tool's result into one of the responses that clients know."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from types import MappingProxyType

import orjson
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ReadResourceResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from backend.chat.models import FilePart, Json, is_too_deep
from backend.chat.protocol.files_in_outputs import left_out, without_files
from backend.chat.protocol.tool_responses import BlockOutput, ErrorResponse, OutputFile, ToolResponse

MAX_OUTPUT_BYTES = 1_000_000
MAX_INLINE_CHARS = 16_384
"""Base64 characters of an image or a file. Longer ones are named but left out, since a model cannot read them here."""
MAX_ERROR_CHARS = 4_000
_TEXTS = re.compile(r"application/(.+\+)?(json|xml|yaml|toml|javascript)")
"""Types of texts besides `text/…`."""


Kept = Mapping[int, FilePart]
"""The files of a result that the conversation keeps, by their places in its content."""


def response_of(
    result: CallToolResult, block_id: str, block_name: str, session_id: str | None, kept: Kept = MappingProxyType({})
) -> ToolResponse:
    """Returns `block_output`. Its `outputs` are the structured content or, without that, the list of parts.

    Parts beside structured content are in `content`, except a text that repeats it. Those that are `kept` name their
    file. Returns `error` if the tool reports one, or if the output is too large or cannot be stored.
    """
    if result.is_error:
        return failed(_words_of(result) or f"{block_id} failed.", session_id)
    outputs, content = result.structured_content, None
    if outputs is None:
        outputs = [_part(block, kept.get(place)) for place, block in enumerate(result.content)]
    else:
        others = [(place, block) for place, block in enumerate(result.content) if not _repeats(block, outputs)]
        content = [_part(block, kept.get(place)) for place, block in others] or None
        if is_too_deep(outputs):
            return failed(f"{block_id} answered with JSON that cannot be kept.", session_id)
        outputs = without_files(outputs, MAX_INLINE_CHARS)
    size = _size_of([outputs, content])
    if size is None:
        return failed(f"{block_id} answered with JSON that cannot be kept.", session_id)
    if size > MAX_OUTPUT_BYTES:
        return too_large(block_id, f"{size} bytes; at most {MAX_OUTPUT_BYTES} are taken", session_id)
    return BlockOutput(
        message=f"{block_id} has answered.",
        session_id=session_id,
        block_id=block_id,
        block_name=block_name,
        outputs=outputs,
        content=content,
        files=[_named(file) for file in dict.fromkeys(kept.values())] or None,
    )


def result_of_resource(result: ReadResourceResult) -> CallToolResult:
    """Returns the contents of a resource in the form of a tool's result."""
    return CallToolResult(content=[EmbeddedResource(resource=one) for one in result.contents])


def _named(file: FilePart) -> OutputFile:
    return OutputFile(
        file_id=file.file_id,
        media_type=file.media_type,
        filename=file.filename,
        size=file.size,
        pages=file.pages,
        url=file.url,
    )


def too_large(block_id: str, how: str, session_id: str | None) -> ErrorResponse:
    message = f"{block_id} answered with {how}. Ask it for less."
    return ErrorResponse(message=message, session_id=session_id, error="output_too_large")


def failed(message: str, session_id: str | None) -> ErrorResponse:
    return ErrorResponse(message=message[:MAX_ERROR_CHARS], session_id=session_id, error="tool_failed")


def _size_of(outputs: Json) -> int | None:
    """Returns the size in bytes. None if the output cannot be stored: too deep, too large integers, lone surrogates."""
    try:
        return None if is_too_deep(outputs) else len(orjson.dumps(outputs))
    except TypeError:
        return None


def _words_of(result: CallToolResult) -> str:
    """Returns everything that a tool says of its failure: texts, embedded texts, links and structured content."""
    words = []
    for block in result.content:
        match block:
            case TextContent(text=text) | EmbeddedResource(resource=TextResourceContents(text=text)):
                words.append(text)
            case ResourceLink():
                words.append(" ".join(filter(None, (block.title or block.name, block.description, str(block.uri)))))
            case EmbeddedResource(resource=resource):
                words.append(str(resource.uri))
    structured = result.structured_content
    told = structured and not any(_repeats(block, structured) for block in result.content)
    if told and not is_too_deep(structured):
        words.append(_shown(without_files(structured, MAX_INLINE_CHARS)))
    return "\n".join(filter(None, words))


def _shown(structured: Json) -> str:
    try:
        return orjson.dumps(structured).decode()
    except TypeError:
        return json.dumps(structured, default=str)


def _repeats(block: ContentBlock, structured: Json) -> bool:
    """Returns True if a text is the structured content again, as JSON or as its only value.

    Servers send it for clients that know no structured content.
    """
    if not isinstance(block, TextContent):
        return False
    values = list(structured.values()) if isinstance(structured, dict) else []
    if len(values) == 1 and block.text == values[0]:
        return True
    if len(block.text) > MAX_OUTPUT_BYTES:
        return False
    try:
        said = json.loads(block.text)
    except (ValueError, RecursionError):
        return False
    return bool(said == structured or (len(values) == 1 and said == values[0]))


def _part(block: ContentBlock, kept: FilePart | None) -> dict[str, Json]:
    match block:
        case ImageContent() | AudioContent() if kept is not None:
            return {"type": block.type, "mime_type": kept.media_type, "file_id": kept.file_id}
        case EmbeddedResource(resource=BlobResourceContents() as file) if kept is not None:
            return {"type": "resource", "uri": file.uri, "mime_type": kept.media_type, "file_id": kept.file_id}
        case TextContent():
            return {"type": "text", "text": block.text}
        case ImageContent() | AudioContent():
            return {"type": block.type, "mime_type": block.mime_type, **_inlined("data", block.data)}
        case EmbeddedResource(resource=BlobResourceContents() as file):
            about = {"uri": file.uri, "mime_type": file.mime_type}
            text = _text_in(file)
            return {"type": "resource", **about, **(_inlined("blob", file.blob) if text is None else {"text": text})}
        case EmbeddedResource(resource=TextResourceContents() as file):
            return {"type": "resource", "uri": file.uri, "mime_type": file.mime_type, "text": file.text}
        case ResourceLink():
            about = {"name": block.name, "description": block.description, "mime_type": block.mime_type}
            return {"type": "resource_link", "uri": block.uri, **about}
        case _:
            return {"type": "unknown"}


def _text_in(file: BlobResourceContents) -> str | None:
    """Returns the text of a small file whose type says that it is one."""
    kind = (file.mime_type or "").partition(";")[0].strip().lower()
    if len(file.blob) > MAX_OUTPUT_BYTES or not (kind.startswith("text/") or _TEXTS.fullmatch(kind)):
        return None
    try:
        return base64.b64decode(file.blob, validate=True).decode()
    except ValueError:  # neither base64 nor UTF-8
        return None


def _inlined(member: str, data: str) -> dict[str, Json]:
    if len(data) <= MAX_INLINE_CHARS:
        return {member: data}
    return {"left_out": left_out(data)}

"""Pictures, PDFs and sounds in requests, as three APIs document them (all read 2026-11-30). Anything else is refused.

- OpenAI, chat completions: `ChatCompletionContentPartImageParam`, `…FileParam`, `…InputAudioParam` of `openai` 3.54.0;
  platform.openai.com, "File inputs": PDF only, as a data URL with a name. Results of tools have texts only.
- OpenAI, responses: `ResponseInputImageParam`, `ResponseInputFileParam`; results of tools may have them, too
  (`ResponseFunctionCallOutputItemListParam`).
- Anthropic: `ImageBlockParam`, `DocumentBlockParam`, also in `ToolResultBlockParam`, of `anthropic` 2.12;
  docs.claude.com, "Vision" (5 MB in base64) and "PDF support".

The model `blind` takes no files, `pictures-only` no PDFs. They refuse them with OpenAI's words.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MOST = 5 * 1024 * 1024
_DATA = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,([A-Za-z0-9+/=]+)")
BLIND = "Invalid content type. image_url is only supported by certain models."


def openai_fault(content: Any, model: str) -> str | None:
    """Returns the reason for which a user's content in chat completions would be refused, or None."""
    if isinstance(content, str):
        return None
    for block in content:
        kind = block.get("type")
        if kind != "text" and model == "blind":
            return BLIND
        if kind == "file" and model == "pictures-only":
            return "Invalid value: 'file'. Supported values are: 'text', 'image_url', 'input_audio' and 'refusal'."
        if kind == "text":
            fault = None if block["text"] else "a text is empty"
        elif kind == "image_url" and not block["image_url"].keys() - {"url", "detail"}:
            fault = _url_fault(block["image_url"]["url"], IMAGES)
        elif kind == "file" and block["file"].keys() == {"filename", "file_data"}:
            fault = _url_fault(block["file"]["file_data"], ("application/pdf",))
        elif kind == "input_audio" and block["input_audio"].keys() == {"data", "format"}:
            fault = _audio_fault(**block["input_audio"])
        else:
            fault = f"Invalid value: '{kind}'."
        if fault is not None:
            return fault
        if unknown := block.keys() - {"type", kind, "cache_control"}:
            return f"Unknown parameter: '{min(unknown)}'."
    return None if content else "a message has no content"


def responses_fault(content: Any) -> str | None:
    """Returns the reason for which a user's content in the Responses API would be refused, or None."""
    for block in [] if isinstance(content, str) else content:
        match block:
            case {"type": "input_text", "text": str(text), **rest} if text and not rest:
                pass
            case {"type": "input_image", "image_url": url, "detail": "auto" | "low" | "high", **rest} if not rest:
                if fault := _url_fault(url, IMAGES):
                    return fault
            case {"type": "input_file", "filename": str(), "file_data": url, **rest} if not rest:
                if fault := _url_fault(url, ("application/pdf",)):
                    return fault
            case _:
                return f"Invalid content: {sorted(block)}"
    return None


def anthropic_fault(block: dict[str, Any]) -> str | None:
    """Returns the reason for which a picture or a document would be refused, alone or in the result of a tool.

    None for other blocks.
    """
    if block["type"] == "tool_result" and not isinstance(block["content"], str):
        for inner in block["content"]:
            if inner["type"] not in ("text", "image", "document"):
                return f"tool_result.content: Input tag '{inner['type']}' does not match"
            if fault := anthropic_fault(inner):
                return fault
    if block["type"] not in ("image", "document"):
        return None
    allowed = {"type", "source", "cache_control"} | ({"title"} if block["type"] == "document" else set())
    if unknown := block.keys() - allowed:
        return f"{block['type']}.{min(unknown)}: Extra inputs are not permitted"
    source = block["source"]
    types = IMAGES if block["type"] == "image" else ("application/pdf",)
    if source.keys() != {"type", "media_type", "data"} or source["type"] != "base64":
        return f"{block['type']}.source: Input should be a valid dictionary"
    return _fault(source["media_type"], source["data"], types)


def text_of(content: Any) -> str:
    """Returns the texts of a user's content."""
    return content if isinstance(content, str) else "\n".join(block["text"] for block in content if "text" in block)


def _url_fault(url: str, types: tuple[str, ...]) -> str | None:
    found = _DATA.fullmatch(url)
    return _fault(found[1], found[2], types) if found is not None else "Invalid URL: expected a data URL in base64."


def _audio_fault(data: str, format: str) -> str | None:
    marks = {"wav": b"RIFF", "mp3": (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")}
    right = format in marks and base64.b64decode(data, validate=True).startswith(marks[format])  # type: ignore[arg-type]
    return None if right else "The audio could not be decoded."


def _fault(media_type: str, data: str, types: tuple[str, ...]) -> str | None:
    if media_type not in types:
        return f"Invalid media type {media_type}"
    if types == IMAGES and len(data) > MOST:
        return f"image exceeds 5 MB maximum: {len(data)} bytes > {MOST} bytes"
    try:
        head = base64.b64decode(data, validate=True)[:12]
    except binascii.Error:
        return "invalid base64 data"
    marks = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"%PDF-")
    return None if head.startswith(marks) else "Could not process image"

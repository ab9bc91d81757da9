"""A whole conversation as one document: Markdown for people, JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import orjson

from backend.api.history import read_history
from backend.chat.models import Json, Session
from backend.errors import ConversationTooLarge
from backend.postgres import Connection

FORMAT = "copilot-conversation"
VERSION = 1
MAX_EXPORT_BYTES = 16 * 1_048_576
"""The largest number of bytes that the messages of an export have as JSON."""
_ROWS = 500


async def read_conversation(c: Connection, session: Session) -> list[Json]:
    """Returns the UIMessages of the current branch, in order. Long outputs of tools are cut, as in the history.

    Requires a snapshot. Raises ConversationTooLarge if they have more than MAX_EXPORT_BYTES.
    """
    pages: list[list[Json]] = []
    room, before = MAX_EXPORT_BYTES, None
    while True:
        page = await read_history(c, session.id, None, ui=True, limit=_ROWS, before=before)
        room -= len(orjson.dumps(page.messages))
        if room < 0:
            raise ConversationTooLarge
        pages.append(page.messages)
        if not page.older or page.first is None:
            return [message for part in reversed(pages) for message in part]
        before = page.first


def as_json(session: Session, instructions: str | None, messages: list[Json]) -> bytes:
    """Returns the document `{format, version, exported_at, session, messages}`."""
    told = {
        "id": session.id,
        "title": session.title,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "metadata": session.metadata,
        "instructions": instructions,
    }
    document = {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": datetime.now(UTC),
        "session": told,
        "messages": messages,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z)


def as_markdown(session: Session, messages: list[Json]) -> bytes:
    """Returns the texts as Markdown: a heading for each message, a line for each call of a tool, without reasoning."""
    lines = [f"# {session.title or 'Conversation'}", ""]
    for message in messages:
        blocks = list(blocks_of(message))
        if blocks:
            lines += [f"## {'You' if message['role'] == 'user' else 'Assistant'}", ""]
            lines += [line for block in blocks for line in (block, "")]
    return "\n".join(lines).encode()


def content_disposition(session: Session, extension: str) -> str:
    """Returns a Content-Disposition that names the file after the conversation (RFC 6266)."""
    title = " ".join(re.sub(r"[^\w.,()-]+", " ", session.title or "").split()).strip(".") or "conversation"
    plain = title.encode("ascii", "ignore").decode().strip() or "conversation"
    return f"attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{quote(title)}.{extension}"


def blocks_of(message: Json) -> Iterator[str]:
    """Yields the paragraphs of a UIMessage."""
    for part in message["parts"]:
        kind = part["type"]
        if kind == "text" and part["text"].strip():
            yield part["text"].strip("\n")
        elif kind == "data-steering":
            said = [line for block in blocks_of(part["data"]) for line in block.split("\n")]
            yield "\n".join(f"> {line}" for line in ["**You:**", *said])
        elif kind == "dynamic-tool":
            yield f"*Tool {part['toolName']}: {_end_of(part)}*"
        elif kind == "file":
            yield f"File: {part['filename']}"
        elif kind == "source-url":
            yield f"Source: [{part.get('title') or part['url']}]({part['url']})"
        elif kind == "data-error":
            yield f"*{part['data'].get('message', 'The answer failed.')}*"


def _end_of(part: Json) -> str:
    if part["state"] == "output-error":
        return "failed"
    output = part.get("output")
    said = output.get("message") if isinstance(output, dict) else None
    return said if isinstance(said, str) else "done" if part["state"] == "output-available" else "not ended"

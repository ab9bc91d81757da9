"""A whole conversation as one document: Markdown for people, JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from urllib.parse import quote

import orjson

from backend.api.history import hidden_messages, read_history
from backend.chat.models import Json, Session
from backend.chat.store.conversations import trees
from backend.errors import ConversationTooLarge
from backend.postgres import Connection

FORMAT = "copilot-conversation"
VERSION = 1
MAX_EXPORT_BYTES = 16 * 1_048_576
"""The largest number of bytes that the messages of an export have as JSON."""
_ROWS = 500
_COMPARED = 50_000
"""Characters of an answer in which the words of its tools are looked for."""


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


async def read_tree(c: Connection, session: Session, messages: Sequence[Json]) -> list[Json]:
    """Returns all messages with their places, the oldest first; `messages` are those of the current branch.

    An item is `{name, after, message}`: `after` is the name of the message before, or None, and `message` an index in
    `messages`, or a UIMessage of another branch. Empty if there is one branch. Requires a snapshot, and that no task is
    an orphan. Raises ConversationTooLarge.
    """
    tasks = await trees.tree_of(c, session.id)
    if len(tasks) > trees.MAX_TASKS:
        raise ConversationTooLarge
    room = MAX_EXPORT_BYTES - len(orjson.dumps(messages))
    shown = {message["id"]: n for n, message in enumerate(messages)}
    items: list[tuple[float, Json]] = []
    places: dict[str, str | None] = {}
    for task in tasks:
        hidden = {}
        if task.hides_question or task.hides_answer:
            hidden = {message["role"]: message for message in await hidden_messages(c, task.id)}
            room -= len(orjson.dumps(hidden))
            if room < 0:
                raise ConversationTooLarge
        asked = hidden.get("user") if task.hides_question else shown.get(task.message_id or task.question)
        answered = hidden.get("assistant") if task.hides_answer else shown.get(task.answer)
        places[task.question] = task.after
        places[task.answer] = task.question if task.asked is not None else task.after
        if task.asked is not None and asked is not None:
            items.append((task.asked, {"name": task.question, "after": task.after, "message": asked}))
        if answered is not None:
            items.append(
                (task.answered or inf, {"name": task.answer, "after": places[task.answer], "message": answered})
            )
    return _linked([item for _, item in sorted(items, key=lambda one: one[0])], places)


def _linked(items: list[Json], places: Mapping[str, str | None]) -> list[Json]:
    """Makes each message follow one that is shown: messages that nobody sees are left out."""
    names = {item["name"] for item in items}
    for item in items:
        while item["after"] is not None and item["after"] not in names:
            item["after"] = places.get(item["after"])
    return items


def as_json(session: Session, instructions: str | None, messages: list[Json], tree: list[Json]) -> bytes:
    """Returns the document `{format, version, exported_at, session, messages, tree}`, without an empty tree."""
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
        **({"tree": tree} if tree else {}),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z)


def as_markdown(session: Session, messages: list[Json]) -> bytes:
    """Returns the texts as Markdown: a heading for each message, a line for each call of a tool, without reasoning.

    What a tool has told is left out if an answer to the same message of the user repeats it.
    """
    lines = [f"# {session.title or 'Conversation'}", ""]
    for message, said in zip(messages, _said_of(messages), strict=True):
        blocks = list(blocks_of(message, said))
        if blocks:
            lines += [f"## {'You' if message['role'] == 'user' else 'Assistant'}", ""]
            lines += [line for block in blocks for line in (block, "")]
    return "\n".join(lines).encode()


def content_disposition(session: Session, extension: str) -> str:
    """Returns a Content-Disposition that names the file after the conversation (RFC 6266)."""
    title = " ".join(re.sub(r"[^\w.,()-]+", " ", session.title or "").split()).strip(".") or "conversation"
    plain = title.encode("ascii", "ignore").decode().strip() or "conversation"
    return f"attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{quote(title)}.{extension}"


def _said_of(messages: list[Json]) -> list[str]:
    """Returns for each message all texts of the answers from the user's message before to the next one."""
    turns: list[list[str]] = []
    said: list[str] = []
    for message in messages:
        if message["role"] == "user":
            said = []
        else:
            said += [part["text"] for part in message["parts"] if part["type"] == "text"]
        turns.append(said)
    whole: dict[int, str] = {}
    return [whole.setdefault(id(texts), _spaced("\n".join(texts))[:_COMPARED]) for texts in turns]


def _repeats(said: str, told: str) -> bool:
    words = _spaced(told).rstrip(".")
    return len(words) <= len(said) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", said) is not None


def _spaced(text: str) -> str:
    return " ".join(text.split())


def blocks_of(message: Json, said: str = "") -> Iterator[str]:
    """Yields the paragraphs of a UIMessage. `said` are the texts of the answer, with single spaces."""
    for part in message["parts"]:
        kind = part["type"]
        if kind == "text" and part["text"].strip():
            yield part["text"].strip("\n")
        elif kind == "data-steering":
            lines = [line for block in blocks_of(part["data"]) for line in block.split("\n")]
            yield "\n".join(f"> {line}" for line in ["**You:**", *lines])
        elif kind == "dynamic-tool":
            yield f"*Tool {part['toolName']}: {_end_of(part, said)}*"
        elif kind == "file":
            yield f"File: {part['filename']}"
        elif kind == "source-url":
            yield f"Source: [{part.get('title') or part['url']}]({part['url']})"
        elif kind == "data-error":
            yield f"*{part['data'].get('message', 'The answer failed.')}*"


def _end_of(part: Json, said: str) -> str:
    if part["state"] == "output-error":
        return "failed"
    output = part.get("output")
    told = output.get("message") if isinstance(output, dict) else None
    if isinstance(told, str) and told.strip() and not _repeats(said, told):
        return told
    return "done" if part["state"] == "output-available" else "not ended"

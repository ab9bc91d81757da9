"""Reads a conversation that was exported as JSON (`export.py`): its UIMessages become the turns of a new session.

What only had a meaning where it was exported is left out: files (their names are kept), costs, tokens, feedback, and
operations that had not ended. A question that waits for an answer, and a call without a result, end with an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from backend.chat.models import (
    ANSWER_ID,
    OWN_MESSAGE_ID,
    AnswerEnd,
    DataPart,
    FinishReason,
    Json,
    MetadataPart,
    NewMessage,
    Part,
    ReasoningPart,
    Role,
    SourcePart,
    TaskError,
    TaskStatus,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    TurnRequest,
    is_too_deep,
)
from backend.chat.protocol.tool_outputs import safe_json
from backend.chat.store.conversations.imports import ImportedRow, ImportedTurn
from backend.errors import InvalidConversation
from backend.ids import new_task_id

MAX_MESSAGES = 20_000
"""Messages of an imported conversation, on all its branches."""
_MESSAGE_ID = re.compile(r"[\x20-\x7e]{1,255}")
_CALL_ID = re.compile(r"[\x21-\x7e]{1,255}")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_DATA_TYPE = re.compile(r"data-([\w.:-]{1,100})")
_URL = re.compile(r"https?://\S{1,4000}")
_NO_RESULT = "This call had no result when the conversation was exported."


@dataclass(frozen=True, slots=True)
class _Node:
    """A message with its place in the tree: its name, and the name of the one that it follows (None: the beginning)."""

    name: str
    after: str | None
    message: Mapping[str, Json]
    is_current: bool

    @property
    def asks(self) -> bool:
        return bool(self.message["role"] == "user")


def read_turns(messages: Sequence[Json], tree: Sequence[Json] | None) -> list[ImportedTurn]:
    """Returns the turns of an exported conversation, in order. `tree` places the messages; None: there is one branch.

    Raises InvalidConversation, which names the message.
    """
    return _Reading(_with_results(_nodes(messages, tree))).turns()


# --- the tree -----------------------------------------------------------------------------------------------------


def _nodes(messages: Sequence[Json], tree: Sequence[Json] | None) -> list[_Node]:
    shown = [_message(message, f"messages.{n}") for n, message in enumerate(messages)]
    if not tree:
        names = [str(n) for n in range(len(shown))]
        pairs = zip(names, [None, *names], shown, strict=False)
        return [_Node(name, after, message, is_current=True) for name, after, message in pairs]
    nodes = [_node(item, shown, f"tree.{n}") for n, item in enumerate(tree)]
    placed = [item["message"] for item in tree if isinstance(item["message"], int)]
    if placed != list(range(len(shown))):
        raise InvalidConversation("`tree` must name each of `messages` once, in order.")
    known: set[str] = set()
    for n, node in enumerate(nodes):
        if node.name in known or (node.after is not None and node.after not in known):
            raise InvalidConversation(f"tree.{n}: its name is not new, or what it follows does not come before it.")
        known.add(node.name)
    current = [node for node in nodes if node.is_current]
    if any(node.after != before for node, before in zip(current, [None, *(n.name for n in current)], strict=False)):
        raise InvalidConversation("`messages` is not one branch of `tree`.")
    return nodes


def _node(item: Json, shown: Sequence[Mapping[str, Json]], where: str) -> _Node:
    if not isinstance(item, dict):
        raise InvalidConversation(f"{where} must be an object.")
    name, after, message = item.get("name"), item.get("after"), item.get("message")
    if not isinstance(name, str) or not 0 < len(name) <= 255 or not (after is None or isinstance(after, str)):
        raise InvalidConversation(f"{where}: `name` must be a text, and `after` a text or null.")
    if isinstance(message, int) and not isinstance(message, bool):
        if not 0 <= message < len(shown):
            raise InvalidConversation(f"{where}: `messages` has no item {message}.")
        return _Node(name, after, shown[message], is_current=True)
    return _Node(name, after, _message(message, f"{where}.message"), is_current=False)


def _message(message: Json, where: str) -> Mapping[str, Json]:
    if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
        raise InvalidConversation(f"{where} must be a message of the role user or assistant.")
    parts = message.get("parts")
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("type"), str) for p in parts):
        raise InvalidConversation(f"{where}.parts must be a list of objects with a type.")
    return message


def _with_results(nodes: Sequence[_Node]) -> list[_Node]:
    """Keeps each call of a tool once, where it was made, with its newest result.

    The message of an operation repeats the call that began it, with the outcome.
    """
    places: dict[str, tuple[int, int]] = {}
    parts = [list(node.message["parts"]) for node in nodes]
    for n, some in enumerate(parts):
        for p, part in enumerate(some):
            id = part.get("toolCallId")
            if part["type"] != "dynamic-tool" or not isinstance(id, str):
                continue
            if id in places:
                first, place = places[id]
                if str(part.get("state")).startswith("output"):
                    parts[first][place] = part
                some[p] = None
            else:
                places[id] = n, p
    return [
        replace(node, message={**node.message, "parts": [part for part in some if part is not None]})
        for node, some in zip(nodes, parts, strict=True)
    ]


# --- turns --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Draft:
    """A turn that is being made. The end of a message is the sequence of its last row, or of what it follows."""

    question: _Node | None
    answer: _Node | None


class _Reading:
    """Makes turns of nodes. A question and the answer of its own task are one turn; each other answer is a turn."""

    def __init__(self, nodes: Sequence[_Node]) -> None:
        self._drafts = _drafts(nodes)
        self._ends: dict[str, int] = {}
        self._sequence = 0

    def turns(self) -> list[ImportedTurn]:
        return [self._turn(draft) for draft in self._drafts]

    def _turn(self, draft: _Draft) -> ImportedTurn:
        first = draft.question or draft.answer
        assert first is not None
        parent = 0 if first.after is None else self._ends[first.after]
        rows: list[ImportedRow] = []
        request = TurnRequest(None)
        if draft.question is not None:
            request, parts = _question(draft.question.message)
            rows.append(self._row(0, 0, NewMessage(Role.USER, parts), request.message_id, draft.question))
        self._ends[first.name] = self._sequence if rows else parent
        status, error, end = TaskStatus.COMPLETED, None, None
        if draft.answer is not None:
            for step, commit in enumerate(_commits(draft.answer.message), 1):
                for part, (message, id) in enumerate(commit):
                    rows.append(self._row(step, part, message, id, draft.answer))
            self._ends[draft.answer.name] = self._sequence if rows else parent
            status, error, end = _end(draft.answer.message)
        return ImportedTurn(new_task_id(), request, status, error, end, parent, rows)

    def _row(self, step: int, part: int, message: NewMessage, id: str | None, node: _Node) -> ImportedRow:
        self._sequence += 1
        return ImportedRow(self._sequence, step, part, message, id, node.is_current)


def _drafts(nodes: Sequence[_Node]) -> list[_Draft]:
    """Pairs each question with the answer of its own task: the one of the same name, or else the first that follows."""
    by_name = {node.name: node for node in nodes}
    own: dict[str, _Node] = {}
    for node in nodes:
        asked = by_name.get(node.after or "")
        if node.asks or asked is None or not asked.asks:
            continue
        is_own = _suffix(node.name) == _suffix(asked.name)
        if asked.name not in own or is_own:
            own[asked.name] = node
    taken = {node.name for node in own.values()}
    return [
        _Draft(node, own.get(node.name)) if node.asks else _Draft(None, node)
        for node in nodes
        if node.name not in taken
    ]


def _suffix(name: str) -> str:
    return name.removeprefix(OWN_MESSAGE_ID).removeprefix(ANSWER_ID)


# --- questions ----------------------------------------------------------------------------------------------------


def _question(message: Mapping[str, Json]) -> tuple[TurnRequest, tuple[Part, ...]]:
    text, data = _said(message["parts"])
    if not text.strip():
        raise InvalidConversation("A message of the user has no text.")
    metadata = safe_json(message.get("metadata"))
    if is_too_deep(metadata):
        raise InvalidConversation("The metadata of a message is nested too deep.")
    parts: list[Part] = [TextPart(text), *data]
    if metadata is not None:
        parts.append(MetadataPart(metadata))
    return TurnRequest(text, _own_id(message.get("id"))), tuple(parts)


def _own_id(id: Json) -> str | None:
    """Returns the id that a client gave to its message. None for one that a server made of the id of a task."""
    usable = isinstance(id, str) and _MESSAGE_ID.fullmatch(id) and not id.startswith((OWN_MESSAGE_ID, ANSWER_ID))
    return id if usable else None


def _said(parts: Sequence[Mapping[str, Json]]) -> tuple[str, list[DataPart]]:
    """Returns the text of a user's message, with the names of its files, and its data parts."""
    texts: list[str] = []
    names: list[str] = []
    data: list[DataPart] = []
    for part in parts:
        kind = part["type"]
        if kind == "text":
            texts.append(_text(part))
        elif kind == "file":
            names.append(_short(part.get("filename")) or "unnamed")
        elif (named := _DATA_TYPE.fullmatch(kind)) is not None and "data" in part:
            data.append(DataPart(named[1], _bounded(part["data"]), _own_id(part.get("id"))))
    files = [f"(File, not imported: {name})" for name in names]
    return "\n\n".join([text for text in ["".join(texts)] if text] + files), data


def _text(part: Mapping[str, Json]) -> str:
    text = part.get("text")
    if not isinstance(text, str):
        raise InvalidConversation(f"A part of the type {part['type'][:40]} has no text.")
    return text


def _short(value: Json) -> str:
    return value[:200] if isinstance(value, str) else ""


def _bounded(value: Json) -> Json:
    if is_too_deep(value):
        raise InvalidConversation("A part of a message is nested too deep.")
    return safe_json(value)


# --- answers ------------------------------------------------------------------------------------------------------

_Commit = list[tuple[NewMessage, str | None]]
"""The messages of one step, each with its id: the model's, and one for each result of a tool."""


def _commits(message: Mapping[str, Json]) -> Iterator[_Commit]:
    step: list[Part] = []
    results: list[ToolResultPart] = []
    for part in message["parts"]:
        if part["type"] == "step-start":
            yield from _step(step, results)
            step, results = [], []
        elif part["type"] == "data-steering":
            yield from _step(step, results)
            step, results = [], []
            yield from _steering(part)
        else:
            _take(part, step, results)
    yield from _step(step, results)


def _step(parts: list[Part], results: list[ToolResultPart]) -> Iterator[_Commit]:
    if parts:
        rows = [NewMessage(Role.ASSISTANT, tuple(parts)), *(NewMessage(Role.TOOL, (one,)) for one in results)]
        yield [(row, None) for row in rows]


def _steering(part: Mapping[str, Json]) -> Iterator[_Commit]:
    """Yields a message that the running turn had taken in. It always has an id."""
    data = part.get("data")
    said = _message({**data, "role": "user"}, "data-steering") if isinstance(data, dict) else {"parts": []}
    text, more = _said(said["parts"])
    if text:
        id = _own_id(said.get("id")) or f"m-{new_task_id()}"
        yield [(NewMessage(Role.USER, (TextPart(text), *more)), id)]


def _take(part: Mapping[str, Json], step: list[Part], results: list[ToolResultPart]) -> None:
    kind = part["type"]
    if kind == "text":
        if text := _text(part):
            step.append(TextPart(text))
    elif kind == "reasoning":
        if text := _text(part):
            step.append(ReasoningPart(text))
    elif kind == "source-url":
        url = part.get("url")
        if isinstance(url, str) and _URL.fullmatch(url):
            step.append(SourcePart(_short(part.get("sourceId")) or url[:200], url, _short(part.get("title")) or None))
    elif kind == "dynamic-tool":
        call = _call(part)
        step.append(call)
        results.append(_result(call, part))


def _call(part: Mapping[str, Json]) -> ToolCallPart:
    id, name = part.get("toolCallId"), part.get("toolName")
    if not isinstance(id, str) or not isinstance(name, str):
        raise InvalidConversation("A call of a tool needs `toolCallId` and `toolName`.")
    if _CALL_ID.fullmatch(id) is None or _TOOL_NAME.fullmatch(name) is None:
        raise InvalidConversation("A call of a tool has an id or a name that is too long or has other characters.")
    return ToolCallPart(id, name, _bounded(part.get("input", {})))


def _result(call: ToolCallPart, part: Mapping[str, Json]) -> ToolResultPart:
    output = part.get("output")
    waits = isinstance(output, dict) and output.get("type") == "operation_pending"
    ended = part.get("state") == "output-available" and not waits
    if ended:
        return ToolResultPart(call.tool_call_id, call.tool_name, _bounded(output))
    given = part.get("errorText") if part.get("state") == "output-error" else None
    reason = given if isinstance(given, str) and given else _NO_RESULT
    return ToolResultPart(
        call.tool_call_id, call.tool_name, {"type": "error", "message": reason[:10_000]}, is_error=True
    )


def _end(message: Mapping[str, Json]) -> tuple[TaskStatus, TaskError | None, AnswerEnd | None]:
    """Returns how an answer ended: by its metadata, and by the part that tells the error of a failed one."""
    metadata: dict[str, Any] = message["metadata"] if isinstance(message.get("metadata"), dict) else {}
    failure = next((part.get("data") for part in message["parts"] if part["type"] == "data-error"), None)
    if isinstance(failure, dict):
        code, said = _short(failure.get("code")) or "internal_error", _short(failure.get("message"))
        return TaskStatus.FAILED, TaskError(code, said or "The answer failed."), None
    if metadata.get("status") == TaskStatus.CANCELLED.value:
        return TaskStatus.CANCELLED, None, None
    reason = metadata.get("finishReason")
    known: FinishReason = "stop" if reason not in get_args(FinishReason) else cast(FinishReason, reason)
    return TaskStatus.COMPLETED, None, AnswerEnd(known, _short(metadata.get("explanation")) or None)

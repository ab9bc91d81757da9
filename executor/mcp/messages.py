"""JSON-RPC messages as servers really send them.

Whatever has the id of an open request is its answer, even if it is not valid: it is repaired, or becomes an error with
a code of `ClientErrorCode`. Otherwise the call would wait until its time limit.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import AsyncIterator, Collection, Container
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import mcp_types
import orjson
from mcp_types import ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCResponse, RequestId, jsonrpc_message_adapter
from pydantic import ValidationError

from backend.chat.models import is_too_deep
from executor.llm.clean_text import clean
from executor.mcp.call_results import repair_result
from executor.mcp.listings import repair_listing

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_BATCH = 100
"""Messages that are read from one JSON array."""
SERVER_ERROR = -32099
"""The code for errors of a server that gives no valid code, or one that has a meaning within this client."""
_EDGE_BYTES, _PIECE_BYTES = 1_024, 65_536
_ID = rb'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,64}")\s*'
_VERSION = rb'"jsonrpc"\s*:\s*"[^"]*"\s*'
_FIRST_ID = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?" + _ID + rb"[,}]")
_LAST_ID = re.compile(rb"[{,]\s*" + _ID + rb"(?:,\s*" + _VERSION + rb")?\}\s*\Z")
_METHOD_FIRST = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?(?:" + _ID + rb',\s*)?"method"')


class ClientErrorCode(IntEnum):
    """Codes of errors that this client makes itself. Errors of servers never have them (`decode`)."""

    INVALID_ANSWER = -32900
    TOO_LARGE = -32901
    NOT_SENT = -32902
    """The call did not reach the server."""
    LOST = -32903
    """The connection broke during the call."""
    SESSION_LOST = -32904
    """The server does not know the session, and did not run the call."""
    REFUSED = -32905
    """The server's HTTP status says that it did not run the call."""
    SIGN_IN = -32906
    """The user must sign in first. The server did not run the call; `data` is its challenge."""


_OWN_CODES = frozenset({*ClientErrorCode, mcp_types.CONNECTION_CLOSED})


@dataclass(frozen=True, slots=True)
class OverlongLine:
    """A line over MAX_MESSAGE_BYTES: its beginning and its end."""

    head: bytes
    tail: bytes


def decode(text: bytes, asked: Container[RequestId]) -> list[JSONRPCMessage]:
    """Returns the messages in a line, an event or a body; none if it holds no JSON-RPC. `asked` are the open requests.

    An error of the server with a code of this client, or with CONNECTION_CLOSED, gets SERVER_ERROR.
    """
    text = text.removeprefix(codecs.BOM_UTF8)
    try:
        message = jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValueError:
        return _repaired(text, asked)
    if isinstance(message, JSONRPCError) and message.error.code in _OWN_CODES:
        message.error.code = SERVER_ERROR
    elif isinstance(message, JSONRPCResponse):
        _mend(message.result)
    return [message]


def own_error(request: RequestId, code: ClientErrorCode, why: str, data: Any = None) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=request, error=ErrorData(code=code, message=why, data=data))


def too_large(request: RequestId) -> JSONRPCError:
    return own_error(request, ClientErrorCode.TOO_LARGE, f"its answer has more than {MAX_MESSAGE_BYTES} bytes")


def errors_for(line: OverlongLine, asked: Collection[RequestId]) -> list[JSONRPCMessage]:
    """Returns error answers for a line that was too long to read.

    The id at either end of the line names the call. If no id is there and several calls are open, each gets an error.
    """
    if _METHOD_FIRST.match(line.head):
        return []
    found = _id_at_an_edge(line.head, line.tail)
    if found is None and len(asked) == 1:
        (found,) = asked
    if found is not None:
        return [too_large(found)] if found in asked else []
    return [own_error(request, ClientErrorCode.LOST, "an answer was too large to be read") for request in asked]


async def read_lines(output: Any) -> AsyncIterator[bytes | OverlongLine]:
    """Yields the lines of a stream with `read`. It holds MAX_MESSAGE_BYTES at most, however long a line is."""
    line = LineBuffer()
    while piece := await output.read(_PIECE_BYTES):
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line.add(end)
            yield line.take()
        line.add(rest)
    if not line.empty:
        yield line.take()


class LineBuffer:
    """Bytes that arrive in pieces. From MAX_MESSAGE_BYTES on, it keeps their beginning and their end only."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._head: bytes | None = None

    @property
    def empty(self) -> bool:
        return not self._held

    @property
    def over(self) -> bool:
        return self._head is not None

    def add_long(self, line: OverlongLine) -> None:
        self._head, self._held = line.head, bytearray(line.tail)

    def add(self, piece: bytes) -> None:
        self._held += piece
        if self._head is None and len(self._held) > MAX_MESSAGE_BYTES:
            self._head = bytes(self._held[:_EDGE_BYTES])
        if self._head is not None:
            del self._held[:-_EDGE_BYTES]

    def take(self) -> bytes | OverlongLine:
        held, head = bytes(self._held), self._head
        self._held.clear()
        self._head = None
        return held if head is None else OverlongLine(head, held)


def _repaired(text: bytes, asked: Container[RequestId]) -> list[JSONRPCMessage]:
    try:
        document = json.loads(text.decode(errors="replace"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        found = _id_at_an_edge(text[:_EDGE_BYTES], text[-_EDGE_BYTES:])
        return [_invalid(found)] if found is not None and found in asked else []
    entries = document[:MAX_BATCH] if isinstance(document, list) else [document]
    return [message for entry in entries if (message := _message_of(entry, asked)) is not None]


def _message_of(entry: Any, asked: Container[RequestId]) -> JSONRPCMessage | None:
    if not isinstance(entry, dict):
        return None
    request = _request_id(entry.get("id"))
    if isinstance(entry.get("method"), str):
        return _validated({**entry, "jsonrpc": "2.0"})
    if request is None or request not in asked or entry.keys().isdisjoint({"jsonrpc", "result", "error"}):
        return None
    if is_too_deep(entry):
        return _invalid(request)
    if (error := entry.get("error")) is not None:
        return JSONRPCError(jsonrpc="2.0", id=request, error=_error_of(_clean(error)))
    if isinstance(result := entry.get("result"), dict):
        result = _clean(result)
        _mend(result)
        return JSONRPCResponse(jsonrpc="2.0", id=request, result=result)
    return _invalid(request)


def _validated(entry: dict[str, Any]) -> JSONRPCMessage | None:
    try:
        return None if is_too_deep(entry) else jsonrpc_message_adapter.validate_python(_clean(entry), by_name=False)
    except ValidationError:
        return None


def _error_of(error: Any) -> ErrorData:
    """Returns an error with all words of the server's, whatever it put in place of a code and a message."""
    members = error if isinstance(error, dict) else {"message": error}
    code, message = members.get("code"), members.get("message")
    words = [code] if isinstance(code, str) and not re.fullmatch(r"-?\d{1,9}", code) else []
    if isinstance(message, str) and message:
        words.append(message)
    elif message is not None and message != "":
        words.append(orjson.dumps(message, default=str).decode())
    number = (
        int(code) if not words[:-1] and isinstance(code, int | str) and re.fullmatch(r"-?\d{1,9}", str(code)) else 0
    )
    usable = number != 0 and number not in _OWN_CODES
    said = ": ".join(words) or "The server answered with an error that has no message."
    return ErrorData(code=number if usable else SERVER_ERROR, message=said, data=members.get("data"))


def _mend(result: dict[str, Any]) -> None:
    """Has the SDK take lists of tools and results of calls that are partly invalid, and calls that have become tasks.

    mcp 2.3.0 can send such a call, and refuses its answer (2025-11-25) because it has no content.
    """
    repair_listing(result)
    repair_result(result)
    if isinstance(result.get("task"), dict):
        result.setdefault("content", [])


def _invalid(request: RequestId) -> JSONRPCError:
    return own_error(request, ClientErrorCode.INVALID_ANSWER, "its answer is not valid")


def _request_id(given: Any) -> RequestId | None:
    if isinstance(given, float) and given.is_integer():
        return int(given)
    if isinstance(given, str) and re.fullmatch(r"\d{1,18}", given):
        return int(given)
    return given if isinstance(given, int | str) and not isinstance(given, bool) else None


def _id_at_an_edge(head: bytes, tail: bytes) -> RequestId | None:
    """Returns the id at the beginning or the end of an object, where all SDKs write it."""
    found = _FIRST_ID.match(head) or _LAST_ID.search(tail)
    try:
        return _request_id(json.loads(found[1])) if found else None
    except ValueError:  # a text with a control character, or with bytes that are no UTF-8
        return None


def _clean(value: Any) -> Any:
    """Returns the value without halves of surrogate pairs and NULs, which cannot be stored."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _clean(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_clean(member) for member in value]
    return value

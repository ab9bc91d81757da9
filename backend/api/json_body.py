"""JSON from strangers, read strictly: whatever the bytes are, a value that every store can hold, or an AppError."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import NoReturn

from backend.chat.models import Json
from backend.errors import DuplicateKey, InvalidJson, InvalidNumber, InvalidUnicode, TooDeep

MAX_DEPTH = 32
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def load_json(body: bytes) -> Json:
    """The value of a JSON document. Raises InvalidJson, DuplicateKey, InvalidNumber, InvalidUnicode, TooDeep."""
    value = _decode(body)
    _check(value)
    return value


def load_conversation(body: bytes) -> Json:
    """The body of the AI SDK's transport, which sends all messages back each time, ours too. The last one of the user
    is read as by `load_json`; the others keep their shape and what tells them apart, and nothing of their parts."""
    document = _decode(body)
    if isinstance(document, dict) and isinstance(messages := document.get("messages"), list):
        last = next((at for at in range(len(messages) - 1, -1, -1) if _is_users(messages[at])), None)
        document["messages"] = [one if at == last else _without_contents(one) for at, one in enumerate(messages)]
    _check(document)
    return document


def _is_users(message: Json) -> bool:
    return isinstance(message, dict) and message.get("role") == "user"


def _without_contents(message: Json) -> Json:
    if not isinstance(message, dict):
        return message
    kept = {key: message[key] for key in ("id", "role", "parts") if key in message}
    if isinstance(parts := kept.get("parts"), list):
        kept["parts"] = [{} if isinstance(part, dict) else part for part in parts]
    return kept


def _decode(body: bytes) -> Json:
    try:
        return _decoder.decode(body.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise InvalidJson from None
    except ValueError:  # an integer of more digits than Python converts
        raise InvalidNumber from None
    except RecursionError:
        raise TooDeep from None


def _check(document: Json) -> None:
    """Level by level, so that no nesting can exhaust the stack."""
    level, depth = [document], 0
    while level:
        below: list[Json] = []
        for value in level:
            kind = type(value)
            if kind is str:
                _check_text(value)
            elif kind is dict:
                for key in value:
                    _check_text(key)
                below += value.values()
            elif kind is list:
                below += value
            elif (kind is int and not _SMALLEST <= value <= _LARGEST) or (kind is float and not isfinite(value)):
                raise InvalidNumber
        depth += 1
        if depth > MAX_DEPTH and any(isinstance(value, dict | list) for value in level):
            raise TooDeep
        level = below


def _check_text(text: str) -> None:
    if _UNSTORABLE.search(text) is not None:
        raise InvalidUnicode


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateKey
    return members


def _constant(name: str) -> NoReturn:
    raise InvalidNumber


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)

"""Strict JSON parsing of request bodies. The result is a value that every store can hold, or an AppError is raised."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import NoReturn

from backend.chat.models import MAX_DEPTH, Json
from backend.errors import (
    DuplicateKey,
    InvalidJson,
    InvalidNumber,
    InvalidUnicode,
    TooDeep,
    TooManyValues,
)

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
MAX_EARLIER = 100
"""The messages before the user's last one of which ids are kept."""
_ID = re.compile(r"[\x20-\x7e]{1,255}")
_ANSWER = ("state", "approval", "toolCallId", "output", "errorText")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def load_json(body: bytes, max_depth: int = MAX_DEPTH) -> Json:
    """Parses a JSON document of at most `max_depth` levels, whose values a JsonMeter has counted.

    Raises InvalidJson, DuplicateKey, InvalidNumber, InvalidUnicode, TooDeep.
    """
    value = _decode(body)
    _check(value, max_depth=max_depth)
    return value


def load_conversation(body: bytes, max_values: int) -> Json:
    """Parses the body of the AI SDK's transport, which sends the whole conversation each time.

    Keeps three things of `messages`: the user's last message, the ids and roles of the MAX_EARLIER messages before it,
    and the answers in the last step of the assistant's message if that is the last one (decisions about approvals, and
    outputs of the page's tools). What is kept is checked like any body in `load_json`, and may have `max_values` values
    together with all other members of the body. Drops the rest, except the first item that is no object, which the
    schema refuses. Raises the same errors as `load_json`, and TooManyValues.
    """
    document = _decode(body)
    if isinstance(document, dict) and isinstance(messages := document.get("messages"), list):
        place = next((n for n in reversed(range(len(messages))) if _is_users(messages[n])), None)
        odd = [message for message in messages if not isinstance(message, dict)]
        kept = [] if place is None else [messages[place]]
        document["messages"] = kept = [*odd[:1], *kept, *_answered(messages[-1:])]
        _check(document, max_values)
        if not odd:
            earlier = messages[:place] if place is not None else messages
            kept[:0] = [_stub(message) for message in earlier[-MAX_EARLIER:] if _has_id(message)]
        return document
    _check(document, max_values)
    return document


def _has_id(message: dict[str, Json]) -> bool:
    id = message.get("id")
    return isinstance(id, str) and _ID.fullmatch(id) is not None and message.get("role") in ("user", "assistant")


def _stub(message: dict[str, Json]) -> Json:
    return {"id": message["id"], "role": message["role"]}


def _answered(last: list[Json]) -> list[Json]:
    """Returns the assistant's message with the answered parts of its last step, or nothing if there are none."""
    if not last or not isinstance(last[0], dict) or last[0].get("role") != "assistant":
        return []
    parts = last[0].get("parts")
    step: list[Json] = []
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            step = [] if part.get("type") == "step-start" else [*step, part]
    answered = [{name: part[name] for name in _ANSWER if name in part} for part in step if _is_answer(part)]
    return [{"id": last[0].get("id", ""), "role": "assistant", "parts": answered}] if answered else []


def _is_answer(part: Json) -> bool:
    by_page = part.get("state") in ("output-available", "output-error") and not part.get("providerExecuted")
    return part.get("state") == "approval-responded" or (by_page and "toolCallId" in part)


def _is_users(message: Json) -> bool:
    return isinstance(message, dict) and message.get("role") == "user"


def _decode(body: bytes) -> Json:
    try:
        return _decoder.decode(body.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise InvalidJson from None
    except ValueError:  # an integer with more digits than Python converts
        raise InvalidNumber from None
    except RecursionError:
        raise TooDeep from None


def _check(document: Json, max_values: int | None = None, max_depth: int = MAX_DEPTH) -> None:
    """Checks the value level by level, without recursion, so that deep nesting cannot exhaust the stack."""
    level, depth, values = [document], 0, 0
    while level:
        values += len(level)
        if max_values is not None and values > max_values:
            raise TooManyValues
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
        if depth > max_depth and any(isinstance(value, dict | list) for value in level):
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

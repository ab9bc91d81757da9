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
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise InvalidJson from None
    except ValueError:  # an integer of more digits than Python converts
        raise InvalidNumber from None
    except RecursionError:
        raise TooDeep from None
    _check(value)
    return value


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

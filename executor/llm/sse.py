"""A parser of server-sent events that returns the `data` of each event, the only field that model providers need.

A line ends with CR LF, LF or CR only (WHATWG HTML, 9.2.6). U+2028 and similar characters are text.
"""

from __future__ import annotations

import json
from typing import NoReturn

import orjson

from backend.chat.models import Json

MAX_EVENT_BYTES = 8 * 1024 * 1024


class SseParser:
    """A parser that takes bytes in any pieces and returns the data of each complete event.

    Comments and other fields are dropped. Raises ValueError if an event has more than MAX_EVENT_BYTES.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._skip_lf = False
        self._first = True

    @property
    def _between(self) -> bool:
        """Returns True if nothing of an event has come yet, after the first one."""
        return not (self._first or self._skip_lf or self._pieces or self._data)

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._between and _is_one_event(chunk):
            return [chunk[6:-2]]
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        ends = chunk.endswith((b"\n", b"\r"))
        self._skip_lf = chunk.endswith(b"\r")
        lines = (b"".join((*self._pieces, chunk)) if self._pieces else chunk).splitlines()
        self._pieces.clear()
        self._size = 0
        if not ends:
            self._keep(lines.pop())
        return self._read(lines)

    def end(self) -> list[bytes]:
        """Returns the data of a last event without its blank line, as some servers send it."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        return self._read([rest, b""])

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size + self._data_size > MAX_EVENT_BYTES:
            raise ValueError("an event is too large")

    def _read(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        if self._first and lines:
            self._first = False
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data.clear()
                    self._data_size = 0
            elif line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._data.append(value)
                self._data_size += len(value)
                if self._data_size > MAX_EVENT_BYTES:
                    raise ValueError("an event is too large")
        return events


def _is_one_event(chunk: bytes) -> bool:
    """Returns True for one event of one line of data, as most servers send it."""
    if not chunk.startswith(b"data: ") or len(chunk) > MAX_EVENT_BYTES:
        return False
    return chunk.endswith(b"\n\n") and chunk.find(b"\n") == len(chunk) - 2 and b"\r" not in chunk


def read_json(payload: bytes | str) -> Json:
    """Returns the JSON value. Accepts lone surrogates and invalid UTF-8, which orjson refuses.

    Raises ValueError for anything else that is not JSON, and for NaN and infinities.
    """
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
        try:
            return json.loads(text, parse_constant=_refuse)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")

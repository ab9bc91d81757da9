"""Counts the values and the nesting of a JSON document while it arrives, before anything is decoded.

A decoded document may take fifty times the memory of its bytes (`[{},{},…]`). The counting works on whole pieces with
the methods of `bytes`, so it takes about a millisecond for 100 kB.
"""

from __future__ import annotations

from itertools import accumulate

from backend.errors import TooDeep, TooManyValues

_OTHER_THAN_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class JsonMeter:
    """Counts one document. `values` is the number of `[`, `{` and `,` outside of strings.

    So each container counts as many as it has values, and an empty one counts 1. After an error of syntax the numbers
    mean nothing, but the decoder stops at that error.
    """

    def __init__(self, max_values: int, max_depth: int) -> None:
        self.values = 0
        self._max_values = max_values
        self._max_depth = max_depth
        self._depth = 0
        self._in_string = False
        self._carry = b""

    def feed(self, piece: bytes) -> None:
        """Counts the next piece of the document. Raises TooManyValues and TooDeep."""
        outside = self._outside_of_strings(self._carry + piece)
        brackets = outside.translate(None, delete=_OTHER_THAN_BRACKETS)
        self.values += outside.count(b",") + brackets.count(b"[") + brackets.count(b"{")
        if self.values > self._max_values:
            raise TooManyValues(f"The body has too many values; the limit is {self._max_values}.")
        levels = list(accumulate(map(_STEP.__getitem__, brackets), initial=self._depth))
        self._depth = levels[-1]
        if max(levels) > self._max_depth:
            raise TooDeep

    def _outside_of_strings(self, text: bytes) -> bytes:
        """Returns the bytes of `text` that are in no string. A backslash at the end waits for the next piece."""
        backslashes = len(text) - len(text.rstrip(b"\\"))
        self._carry = b"\\" if backslashes % 2 else b""
        text = text[: len(text) - len(self._carry)]
        if b"\\" in text:
            text = text.replace(rb"\\", b"").replace(rb"\"", b"")
        parts = text.split(b'"')
        outside = b"".join(parts[int(self._in_string) :: 2])
        self._in_string ^= len(parts) % 2 == 0
        return outside

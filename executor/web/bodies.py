"""Bodies of unknown servers, read up to a limit that counts what a compressed body becomes."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable

from executor.web.failures import WebFailure

PIECE = 65_536
"""Bytes that are read at a time."""
ENCODINGS = "gzip, deflate"


async def read_body(pieces: AsyncIterable[bytes], encoding: str, limit: int) -> tuple[bytes, bool]:
    """Returns up to `limit` bytes, and True if there are more. The rest is not read, and not decompressed.

    Raises WebFailure for an encoding that was not asked for, and for a body that is not in its encoding.
    """
    unpack = _unpacking(encoding)
    body = bytearray()
    async for piece in pieces:
        body += unpack(piece, limit + 1 - len(body))
        if len(body) > limit:
            return bytes(body[:limit]), True
    return bytes(body), False


class _Plain:
    def __call__(self, piece: bytes, room: int) -> bytes:
        return piece[:room]


class _Packed:
    """Decompresses. Takes zlib's format and gzip's, and deflate without a head, which some servers send."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._begun = False

    def __call__(self, piece: bytes, room: int) -> bytes:
        try:
            made = self._stream.decompress(piece, room)
        except zlib.error:
            if self._begun:
                raise WebFailure("not_answered", "The page was sent in a broken form.") from None
            self._stream = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            self._begun = True
            return self(piece, room)
        self._begun = True
        return made


def _unpacking(encoding: str) -> _Plain | _Packed:
    match encoding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip" | "deflate":
            return _Packed()
    raise WebFailure("not_answered", "The page was sent in a compression that was not asked for.")

"""Bodies of unknown servers, read up to a limit that counts what a compressed body becomes."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable

from executor.web.failures import WebFailure

PIECE = 65_536
"""Bytes that are read at a time."""
SLACK = 65_536
"""Bytes by which a compressed body may be larger than what it becomes."""
ENCODINGS = "gzip, deflate"


async def read_body(pieces: AsyncIterable[bytes], encoding: str, limit: int) -> tuple[bytes, bool]:
    """Returns up to `limit` bytes, and True if there are more. The rest is not read, and not decompressed.

    What follows the end of a compressed body is not read. One that takes more than SLACK bytes more than `limit` to
    send is cut, too: it may decompress to nothing for ever.

    Raises WebFailure for an encoding that was not asked for, and for a body that is not in its encoding.
    """
    unpack = _unpacking(encoding)
    body, received = bytearray(), 0
    async for piece in pieces:
        received += len(piece)
        body += unpack(piece, limit + 1 - len(body))
        if len(body) > limit or (received > limit + SLACK and not unpack.ended):
            return bytes(body[:limit]), True
        if unpack.ended:
            break
    return bytes(body), False


class _Plain:
    ended = False

    def __call__(self, piece: bytes, room: int) -> bytes:
        return piece[:room]


class _Packed:
    """Decompresses. Takes zlib's format and gzip's, and deflate without a head, which some servers send."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._begun = False

    @property
    def ended(self) -> bool:
        """True after the end of what is compressed. What follows it would be kept, at a cost of its square."""
        return self._stream.eof

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

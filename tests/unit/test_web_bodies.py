"""Bodies of unknown servers, read within limits."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable

from executor.web.bodies import PIECE, read_body


class Pieces:
    """The pieces of a body. `taken` counts those that were read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.taken += 1
            yield piece


async def test_what_follows_a_compressed_body_is_not_read() -> None:
    pieces = Pieces([zlib.compress(b"some words"), *[bytes(PIECE)] * 50])
    assert await read_body(pieces, "deflate", 2_000_000) == (b"some words", False)
    assert pieces.taken == 1


async def test_a_compressed_body_that_becomes_nothing_is_cut() -> None:
    packing = zlib.compressobj()
    begun = packing.compress(b"some words") + packing.flush(zlib.Z_SYNC_FLUSH)
    nothing = packing.flush(zlib.Z_FULL_FLUSH) or b"\0\0\0\xff\xff"  # an empty block
    pieces = Pieces([begun, *[nothing * 10_000] * 50])
    assert await read_body(pieces, "deflate", 100_000) == (b"some words", True)
    assert pieces.taken < 10


async def test_a_body_without_compression_is_read_up_to_its_limit() -> None:
    assert await read_body(Pieces([b"abc", b"def"]), "", 6) == (b"abcdef", False)
    assert await read_body(Pieces([b"abc", b"def"]), "", 5) == (b"abcde", True)

"""The buffer of a writer: chunks that wait to be sent, in order, with neighbouring deltas of one part merged."""

from __future__ import annotations

from backend.chat.protocol.chunks import Chunk, ReasoningDelta, TextDelta, ToolInputDelta, ascii_json, encode

BATCH_CAP = 256 << 10
"""Size, as `ChunkBuffer.size` counts, after which a batch takes no more chunks."""
BATCH_ENTRIES = 512
RUN_CAP = 32 << 10
"""Size, as `ChunkBuffer.size` counts, after which a merged delta takes no more."""
ENTRY_COST = 64
"""Each piece counts as this many characters more than it has: even a million empty deltas take memory."""

_Delta = TextDelta | ReasoningDelta | ToolInputDelta
_FIELDS: dict[type[_Delta], tuple[str, str]] = {
    TextDelta: ("id", "delta"),
    ReasoningDelta: ("id", "delta"),
    ToolInputDelta: ("toolCallId", "inputTextDelta"),
}


class _Run:
    """Neighbouring deltas of one part, which are sent as one chunk."""

    __slots__ = ("deltas", "kind", "part", "size")

    def __init__(self, kind: type[_Delta], part: str, delta: str, size: int) -> None:
        self.kind = kind
        self.part = part
        self.deltas = [delta]
        self.size = size

    def encode(self) -> bytes:
        """Returns the bytes that `chunks.encode` would make of the merged delta, without building the document."""
        part_field, text_field = _FIELDS[self.kind]
        head = f'{{"type":"{self.kind.type}","{part_field}":'.encode()
        text = ascii_json("".join(self.deltas))
        return b'%b%b,"%b":%b}' % (head, ascii_json(self.part), text_field.encode(), text)


class ChunkBuffer:
    """The chunks that a writer has not sent. `size` is in characters, plus ENTRY_COST for each chunk that was added."""

    __slots__ = ("_pieces", "_run", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | _Run] = []
        self._run: _Run | None = None
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, chunk: Chunk) -> None:
        """Adds a chunk. Raises ValueError or TypeError, and adds nothing, if JSON cannot express it."""
        kind = type(chunk)
        if kind is TextDelta or kind is ReasoningDelta:
            part: str = chunk.id  # type: ignore[union-attr, assignment]
        elif kind is ToolInputDelta:
            part = chunk.tool_call_id  # type: ignore[union-attr]
        else:
            self.add_entry(encode(chunk))
            return
        delta: str = chunk.delta  # type: ignore[union-attr]
        if not isinstance(delta, str):
            raise TypeError("a delta must be text")
        size = len(delta) + ENTRY_COST
        run = self._run
        if run is not None and run.kind is kind and run.part == part and run.size < RUN_CAP:
            run.deltas.append(delta)
            run.size += size
        else:
            self._run = _Run(kind, part, delta, size)
            self._pieces.append(self._run)
        self.size += size

    def add_entry(self, body: bytes) -> None:
        self._run = None
        self._pieces.append(body)
        self.size += len(body) + ENTRY_COST

    def take(self) -> list[bytes]:
        """Removes the chunks that fit in one batch and returns their bytes. Later deltas never merge into them.

        Raises TypeError or ValueError if a part id is not text.
        """
        count = size = 0
        for piece in self._pieces:
            size += piece.size if isinstance(piece, _Run) else len(piece) + ENTRY_COST
            count += 1
            if size >= BATCH_CAP or count >= BATCH_ENTRIES:
                break
        taken = self._pieces[:count]
        self._pieces = self._pieces[count:]
        if not self._pieces:
            self._run = None
        self.size -= size
        return [piece.encode() if isinstance(piece, _Run) else piece for piece in taken]

    def clear(self) -> None:
        self._pieces.clear()
        self._run = None
        self.size = 0

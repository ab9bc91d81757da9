"""What a writer holds until it leaves: chunks in order, neighbouring deltas of one part merged into one."""

from __future__ import annotations

from backend.chat.chunks import Chunk, ReasoningDelta, TextDelta, ToolInputDelta, ascii_json, encode

BATCH_CAP = 256 << 10
BATCH_ENTRIES = 512
RUN_CAP = 32 << 10
ENTRY_COST = 64
"""What a piece is counted as beyond its characters: a million empty deltas are not free."""

_Delta = TextDelta | ReasoningDelta | ToolInputDelta
_FIELDS: dict[type[_Delta], tuple[str, str]] = {
    TextDelta: ("id", "delta"),
    ReasoningDelta: ("id", "delta"),
    ToolInputDelta: ("toolCallId", "inputTextDelta"),
}


class _Run:
    """Neighbouring deltas of one part: one chunk when it leaves."""

    __slots__ = ("deltas", "kind", "part", "size")

    def __init__(self, kind: type[_Delta], part: str, delta: str, size: int) -> None:
        self.kind = kind
        self.part = part
        self.deltas = [delta]
        self.size = size

    def encode(self) -> bytes:
        """The same bytes as `chunks.encode` makes of the merged delta, without a document in between."""
        part_field, text_field = _FIELDS[self.kind]
        head = f'{{"type":"{self.kind.type}","{part_field}":'.encode()
        text = ascii_json("".join(self.deltas))
        return b'%b%b,"%b":%b}' % (head, ascii_json(self.part), text_field.encode(), text)


class ChunkBuffer:
    """`size` is in characters, plus ENTRY_COST for each piece that was added."""

    __slots__ = ("_pieces", "_run", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | _Run] = []
        self._run: _Run | None = None
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, chunk: Chunk) -> None:
        """Raises ValueError or TypeError for what JSON cannot say; the buffer is then as it was."""
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
            raise TypeError("a delta is text")
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
        """Takes what fits in one batch out, as bytes for ever: nothing merges into what was taken.

        Raises TypeError or ValueError for a part id that is no text.
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

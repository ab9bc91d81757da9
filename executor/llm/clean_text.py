"""Model text made storable: no NUL (Postgres refuses it), no half of a surrogate pair (UTF-8 has no bytes for it)."""

from __future__ import annotations

REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """The text with halves that stand side by side joined, lone halves replaced by U+FFFD, and NULs dropped."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "") if "\0" in text else text


class Mender:
    """Cleans a text that comes in pieces: the first half of a pair waits for the piece that brings the second."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def mend(self, piece: str) -> str:
        """What can be passed on; may be empty."""
        if self._held:
            piece, self._held = self._held + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        return clean(piece)

    def end(self) -> str:
        """What is left when the text is over: nothing, or the replacement of a half that never got its other."""
        held, self._held = self._held, ""
        return REPLACEMENT if held else ""

"""Cleaning of model text so that it can be stored: Postgres refuses NUL, and UTF-8 cannot encode a lone surrogate."""

from __future__ import annotations

REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """Returns the text without NULs. Adjacent surrogate halves are joined; lone halves become U+FFFD."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "") if "\0" in text else text


class PiecewiseCleaner:
    """A cleaner of text that arrives in pieces. It holds half of a surrogate pair back until the rest arrives."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    @property
    def holds(self) -> bool:
        """Returns True if half of a pair is held back."""
        return bool(self._held)

    def mend(self, piece: str) -> str:
        """Returns the cleaned text that is complete, which may be empty."""
        if self._held:
            piece, self._held = self._held + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        return clean(piece)

    def end(self) -> str:
        """Ends the text. Returns U+FFFD if a half is still held, otherwise an empty string."""
        held, self._held = self._held, ""
        return REPLACEMENT if held else ""

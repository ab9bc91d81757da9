"""Reasoning that a server leaves in the text of an answer, between tags, because it has no parser for it."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

TAGS: Final[dict[str, str]] = {
    "<think>": "</think>", "<thinking>": "</thinking>", "<thought>": "</thought>", "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>", "[THINK]": "[/THINK]", "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
}  # fmt: skip
"""Opening and closing tags: DeepSeek, Qwen, MiniMax and others; Seed-OSS; Magistral; QwQ preview; Command A."""


def without_reasoning(said: str) -> str:
    """Returns the text after the last closing tag, whose opening tag stood in the prompt. Without one, returns all of
    it.
    """
    ends = (said.rfind(tag) + len(tag) for tag in TAGS.values() if tag in said)
    return said[max(ends, default=0) :]


class _State(Enum):
    BEGINNING = auto()
    THOUGHT = auto()
    TEXT = auto()


class ThinkTags:
    """A splitter of an answer's text, which arrives in pieces. Only tags at its beginning count.

    Blanks around the tags are dropped. A tag that may not be complete yet is held back.
    """

    __slots__ = ("_close", "_held", "_state", "_strip", "opening")

    def __init__(self) -> None:
        self._state = _State.BEGINNING
        self._held = ""
        self._close = ""
        self._strip = False
        self.opening = ""
        """The opening tag. Empty until one was read."""

    @property
    def plain(self) -> bool:
        """Returns True if tags no longer count, and nothing is dropped or held back."""
        return self._state is _State.TEXT and not self._strip

    def feed(self, piece: str) -> list[tuple[bool, str]]:
        """Returns pieces that are not empty, each with True if it is reasoning."""
        if self.plain:
            return [(False, piece)] if piece else []
        pieces: list[tuple[bool, str]] = []
        rest = self._held + piece
        self._held = ""
        while rest:
            match self._state:
                case _State.BEGINNING:
                    rest = self._begin(rest)
                case _State.THOUGHT:
                    rest = self._think(rest, pieces)
                case _State.TEXT:
                    rest = rest.lstrip() if self._strip else rest
                    self._strip = False
                    if rest:
                        pieces.append((False, rest))
                    break
        return pieces

    def end(self) -> list[tuple[bool, str]]:
        """Returns the text that was held back. All text from now on is ordinary text."""
        held, self._held = self._held, ""
        is_thought = self._state is _State.THOUGHT
        held = held if is_thought or not self._strip else held.lstrip()
        self._state, self._strip = _State.TEXT, False
        return [(is_thought, held)] if held else []

    def _begin(self, text: str) -> str:
        """Decides if the text begins with a tag. Returns what is left to split, nothing while it is undecided."""
        bare = text.lstrip()
        for opening, closing in TAGS.items():
            if bare.startswith(opening):
                self._state, self._close, self._strip, self.opening = _State.THOUGHT, closing, True, opening
                return bare[len(opening) :]
            if opening.startswith(bare):
                self._held = text
                return ""
        self._state = _State.TEXT
        return text

    def _think(self, text: str, pieces: list[tuple[bool, str]]) -> str:
        if self._strip and not (text := text.lstrip()):
            return ""
        thought, closing, rest = text.partition(self._close)
        if not closing:
            kept = _overlap(text, self._close)
            thought, self._held = text[: len(text) - kept], text[len(text) - kept :]
        if thought:
            self._strip = False
            pieces.append((True, thought))
        if closing:
            self._state, self._strip = _State.BEGINNING, True  # another thought may follow
        return rest


def _overlap(text: str, tag: str) -> int:
    """Returns how many characters at the end of the text may be the beginning of the tag."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-size:])), 0)

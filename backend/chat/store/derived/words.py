"""The words of a text, for the search in messages: how texts and queries are split, and what of a text is shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

BEFORE, LENGTH = 60, 240
"""Characters of a snippet before its first match, and in all."""
LONGEST = 100
"""Characters of a word that count. Postgres takes up to 2,046 bytes."""
PIECE = 500
"""Characters that are normalised at a time, if the text can be cut there."""
LAST_PLACE, MOST_PLACES = 16_383, 255
"""The last place in a text that Postgres keeps, and the most places of one word."""
_WORD = re.compile(r"[^\W_]+(?:[^\w\s][^\W_]+){0,20}")
_ASKED = re.compile(r'"([^"]*)"|([^"]+)')


def words_of(text: str) -> str:
    """Returns the words of a text in one form of each (case, width, composition), with one space between them.

    Signs that stand for whole words make a text up to 18 times longer, so the result is cut to twice its length.
    Works in pieces that take a few milliseconds, so that other threads run in between: each call of `unicodedata` holds
    the interpreter's lock.
    """
    room, kept = 2 * len(text) + LENGTH, []
    for piece in _pieces(text):
        composed = unicodedata.normalize("NFKC", piece)[:room]
        kept.append(composed.casefold().translate(_KEPT))
        room -= len(composed)
        if room <= 0:
            break
    return " ".join("".join(kept).split())


def _pieces(text: str) -> Iterator[str]:
    """Cuts a text where its normal form can be cut, or after 2 * PIECE characters if it cannot be cut before.

    That needs PIECE marks in a row, which no language has (Unicode's stream-safe format ends at 30). Such marks are
    sorted within each piece only, so the form of their word depends on where the text was cut.
    """
    begin = 0
    while begin < len(text):
        last = min(len(text), begin + 2 * PIECE)
        end = next((at for at in range(begin + PIECE, last) if _can_begin_piece(text[at])), last)
        yield text[begin:end]
        begin = end


def _can_begin_piece(character: str) -> bool:
    """Returns False if normalisation may join this character to those before it, or sort it among them.

    It does so with marks, and with the vowels and finals of Korean syllables.
    """
    first = unicodedata.normalize("NFKD", character)[0]
    return not (unicodedata.category(first).startswith("M") or "\u1160" <= first <= "\u11ff")


class _Kept(dict[int, str]):
    """Maps a character to itself if words keep it, otherwise to a space. Each character is examined once in a process.

    Words have letters, digits, and the marks that belong to a letter, such as the vowel signs of Hindi.
    """

    def __missing__(self, code: int) -> str:
        one = chr(code)
        kept = self[code] = one if one.isalnum() or (one != "_" and f"a{one}".isidentifier()) else " "
        return kept


_KEPT = _Kept()


def vector_of(text: str, tag: str) -> str:
    """Returns the words of a text as a `tsvector` is written, each behind `tag`, with their places in the text."""
    places: dict[str, list[str]] = {}
    for place, word in enumerate(words_of(text).split(), 1):
        known = places.setdefault(word[:LONGEST], [])
        if place <= LAST_PLACE and len(known) < MOST_PLACES:
            known.append(str(place))
    return " ".join(f"'{tag}{word}'{':' if known else ''}{','.join(known)}" for word, known in places.items())


def query_of(asked: str, tag: str) -> str:
    """Returns a `tsquery` for vectors with this tag; an empty text if `asked` has no word.

    A word also finds longer ones that begin with it. Words in double quotes must follow one another.
    """
    terms = []
    for phrase, words in _ASKED.findall(asked):
        split = [f"'{tag}{word[:LONGEST]}'" for word in words_of(phrase or words).split()]
        if phrase:
            terms += [f"({' <-> '.join(split)})"] if split else []
        else:
            terms += [f"{word}:*" for word in split]
    return " & ".join(terms)


def snippet_of(text: str, asked: str) -> list[tuple[str, bool]]:
    """Returns a piece of a text around the first word that matches, split into parts that match and parts that do not.

    The text has at least one match, unless its words were split otherwise; then the snippet is its beginning.
    """
    begins = tuple(words_of(asked).split())
    matches = _matches(text, begins)
    first = next(matches, None)
    start = max(0, first[0] - BEFORE) if first is not None else 0
    end = min(len(text), start + LENGTH)
    pieces, at = [], start
    while first is not None and first[1] <= end:
        pieces += [(text[at : first[0]], False), (text[slice(*first)], True)]
        at = first[1]
        first = next(matches, None)
    pieces.append((text[at:end], False))
    return _with_ellipses([piece for piece in pieces if piece[0]], start > 0, end < len(text))


def _matches(text: str, begins: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for found in _WORD.finditer(text):
        if begins and any(word.startswith(begins) for word in words_of(found.group()[:LENGTH]).split()):
            yield found.span()


def _with_ellipses(pieces: Sequence[tuple[str, bool]], before: bool, after: bool) -> list[tuple[str, bool]]:
    return [*([("… ", False)] if before else []), *pieces, *([(" …", False)] if after else [])]

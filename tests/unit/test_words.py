"""How the search splits texts and queries, and which piece of a text it shows."""

from __future__ import annotations

import sys
import threading
import time
import unicodedata
from random import Random

import pytest

from backend.chat.store.derived.words import (
    _KEPT,
    LENGTH,
    LONGEST,
    PIECE,
    _can_begin_piece,
    query_of,
    snippet_of,
    vector_of,
    words_of,
)
from tests.speed import limit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World_x foo-bar", "hello world x foo bar"),
        ("Straße ＡＢＣ ﬁne", "strasse abc fine"),
        ("cafe\u0301 = café", "café café"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("user@example.org 3.14 C++", "user example org 3 14 c"),
        ("\0 \ud800 ' \\ &|!", ""),
    ],
)
def test_every_word_has_one_form(text: str, words: str) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("asked", "query"),
    [
        ("Two Words", "'two':* & 'words':*"),
        ('say "Good  morning" now', "'say':* & ('good' <-> 'morning') & 'now':*"),
        ('an "open quote', "'an':* & 'open':* & 'quote':*"),
        ('"" & | ! :* \' \\', ""),
        ("it's", "'it':* & 's':*"),
    ],
)
def test_a_query_has_no_operators_but_quotes(asked: str, query: str) -> None:
    assert query_of(asked, "") == query


def test_every_word_has_the_tag_and_its_places() -> None:
    assert vector_of("One two, ONE", "t-") == "'t-one':1,3 't-two':2"
    assert query_of('o "two one"', "t-") == "'t-o':* & ('t-two' <-> 't-one')"
    assert vector_of(" '\\ ", "t-") == ""
    [many] = vector_of("x " * 20_000, "").split()
    assert many.startswith("'x':1,2,")
    assert many.endswith(",255")
    assert vector_of(f"{'y ' * 20_000}z", "").endswith(" 'z'"), "Postgres keeps no place so far behind"
    assert vector_of("w" * 5_000, "") == f"'{'w' * LONGEST}':1"


def test_a_snippet_is_cut_around_the_first_match_and_marks_all() -> None:
    text = f"{'before ' * 50}The Straße's name is STRASSENNAME {'after ' * 50}strasse"
    pieces = snippet_of(text, "strasse")
    assert [piece for piece, matches in pieces if matches] == ["Straße's", "STRASSENNAME"]
    whole = "".join(piece for piece, _ in pieces)
    assert whole.startswith("… ")
    assert whole.endswith(" …")
    assert whole.removeprefix("… ").removesuffix(" …") in text
    assert len(whole) <= LENGTH + 4
    assert snippet_of("a short one", "short") == [("a ", False), ("short", True), (" one", False)]
    assert snippet_of("another", "!") == [("another", False)]


@pytest.mark.parametrize("text", ["word, " * 200_000, "слово, " * 150_000, "x." * 500_000])
def test_a_text_is_read_once_for_its_words_and_no_further_than_its_snippet(text: str) -> None:
    begin = time.process_time()
    assert words_of(text)
    assert snippet_of(text, text[:4])[0][1]
    assert time.process_time() - begin < limit(0.5)


_JOINING = [
    "e\u0301", "\u0301\u0316", "\u0f73", "ﷺ", "ﬁ", "ᄀ", "ᅡ", "ᆨ", "ㄱ", "ㅏ", "ﾡ", "ￂ", "ｶ", "ﾞ", "가", "か\u3099",
    "क\u093c", "ব\u09c7\u09be", "\u09be", "a", "ẛ\u0323", "\U0001d15f", "\U00011131\U00011127", "Å", "ΐ", "²", "\u0345",
]  # fmt: skip


def test_a_text_that_is_normalised_in_pieces_has_the_words_of_the_whole() -> None:
    random = Random(1)
    for _ in range(20):
        text = "".join(random.choices(_JOINING, k=3 * PIECE))
        whole = unicodedata.normalize("NFKC", text)[: 2 * len(text) + LENGTH]
        assert words_of(text) == " ".join(whole.casefold().translate(_KEPT).split())


def test_fewer_marks_in_a_row_than_a_piece_are_never_cut() -> None:
    word = ("a" + "\u0301\u0316" * PIECE)[:PIECE]
    [form] = words_of(word).split()
    for before in range(0, 2 * PIECE, 3):
        assert words_of(f"{'x' * before} {word}").split()[-1] == form


def test_every_character_that_joins_those_before_is_kept_with_them() -> None:
    pairs = (unicodedata.decomposition(chr(code)) for code in range(sys.maxunicode + 1))
    seconds = {chr(int(pair.split()[1], 16)) for pair in pairs if pair and pair[0] != "<" and " " in pair}
    vowels, finals = map(chr, range(0x1161, 0x1176)), map(chr, range(0x11A8, 0x11C3))
    for joining in (*seconds, *vowels, *finals):
        assert not _can_begin_piece(joining)


@pytest.mark.parametrize("sign", ["ﷺ", "\u0316", "ᅡ"])
def test_a_text_is_normalised_in_short_pieces_whatever_its_characters(
    sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths, unpatched = [], unicodedata.normalize

    def normalize(form: str, piece: str) -> str:
        lengths.append(len(piece))
        return unpatched(form, piece)

    monkeypatch.setattr("backend.chat.store.derived.words.unicodedata.normalize", normalize)
    words_of(sign * (5 * PIECE))
    assert max(lengths) <= 2 * PIECE
    assert len(lengths) > 1


def test_a_long_text_of_ligatures_lets_other_threads_run() -> None:
    text = "ﷺ" * 100_000
    longest, last, done = 0.0, time.perf_counter(), threading.Event()
    working = threading.Thread(target=lambda: (vector_of(text, "t"), done.set()))
    working.start()
    while not done.is_set():
        time.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    working.join()
    assert longest < limit(0.2)

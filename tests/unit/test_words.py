"""How the search splits texts and queries, and which piece of a text it shows."""

from __future__ import annotations

import time

import pytest

from backend.chat.words import LENGTH, LONGEST, query_of, snippet_of, vector_of, words_of
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

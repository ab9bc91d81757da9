"""Cron expressions in words."""

from __future__ import annotations

import pytest

from backend.platform.cron_words import cron_in_words


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 8 * * *", "At 08:00 every day"),
        ("30 9 * * 1-5", "At 09:30 on Monday through Friday"),
        ("0 9 1 * *", "At 09:00 on the first day of every month"),
        ("0 9 * * 1#1", "At 09:00 on the first Monday of the month"),
        ("@daily", "@daily"),
        ("0 8 31 2 *", "0 8 31 2 *"),
        ("", ""),
        ("\ud800 8 * * *", "\ud800 8 * * *"),
    ],
)
def test_an_expression_has_words_or_stays(cron: str, words: str) -> None:
    assert cron_in_words(cron) == words

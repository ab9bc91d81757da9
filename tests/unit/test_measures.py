"""Checks the measures of `make measures` that have a limit."""

from __future__ import annotations

import pytest

from tests.measures import KINDS, MAX_HEADLESS, headless_share, module_counts

MAX_MODULES = 15


@pytest.mark.parametrize("kind", KINDS)
def test_few_texts_begin_with_a_headless_clause(kind: str) -> None:
    texts = KINDS[kind]()
    assert headless_share(texts) <= MAX_HEADLESS, [text.where for text in texts if text.headless]


def test_no_folder_of_chat_has_too_many_modules() -> None:
    assert {folder: count for folder, count in module_counts().items() if count > MAX_MODULES} == {}

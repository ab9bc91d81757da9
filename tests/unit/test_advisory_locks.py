"""The classes of advisory locks."""

from __future__ import annotations

import re
from collections import Counter

from tests import ROOT


def test_each_class_of_advisory_locks_is_taken_for_one_purpose() -> None:
    """Otherwise two acts that have nothing to do with each other wait for each other."""
    sources = (path.read_text() for path in ROOT.glob("backend/**/*.py"))
    numbers = Counter(number for text in sources for number in re.findall(r"LOCKS? = (7_273_\d+)", text))
    assert len(numbers) > 5
    assert [number for number, uses in numbers.items() if uses > 1] == []

"""New sessions are limited for each caller and minute."""

from __future__ import annotations

import pytest

from backend.api.per_minute import WINDOW_S, PerMinute
from backend.errors import TooManySessions


def test_each_caller_has_a_number_of_new_sessions_a_minute() -> None:
    now = 1000.0
    made = PerMinute(2, TooManySessions, clock=lambda: now)
    for caller in ("user:a", "user:b"):
        made.count(caller)
        made.count(caller)
        with pytest.raises(TooManySessions) as refused:
            made.count(caller)
        assert refused.value.retry_after == WINDOW_S
    now += WINDOW_S - 0.5
    with pytest.raises(TooManySessions) as refused:
        made.count("user:a")
    assert refused.value.retry_after == 1
    now += 0.5
    made.count("user:a")

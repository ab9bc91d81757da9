"""What fault tests share: the seed of a run, and the figures at its end."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.faults.figures import said
from tests.faults.scale import new_seed


@pytest.fixture
def seed() -> int:
    """Printed, so that a failure shows it: FAULT_SEED=… runs the same again."""
    number = new_seed()
    print(f"FAULT_SEED={number}")
    return number


@pytest.fixture
def chance(seed: int) -> Random:
    return Random(seed)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if said:
        terminalreporter.section("figures of the fault tests")
        for line in said:
            terminalreporter.write_line(line)

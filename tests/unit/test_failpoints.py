"""Failpoints: read strictly, acting once, and each of them reached somewhere in the product."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.config import load_settings
from backend.errors import ConfigError
from backend.failpoints import NAMES, FailpointReached, arm, reach

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    arm("")


def test_a_failpoint_acts_at_its_turn_and_only_once() -> None:
    arm("after_claim=2:raise")
    reach("after_claim")
    with pytest.raises(FailpointReached):
        reach("after_claim")
    reach("after_claim")


def test_without_a_plan_nothing_happens() -> None:
    arm("")
    for name in NAMES:
        reach(name)


@pytest.mark.parametrize("plan", ["after_claim", "nowhere=1:kill", "after_claim=x:kill", "after_claim=1:sleep"])
def test_a_plan_that_cannot_be_read_stops_the_start(plan: str) -> None:
    with pytest.raises(ConfigError, match="FAILPOINTS"):
        load_settings(files=(), failpoints=plan)


def test_kill_is_the_end_of_the_process() -> None:
    code = "from backend.failpoints import arm, reach; arm('mid_chunk=1:kill'); reach('mid_chunk')"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, stderr=subprocess.DEVNULL).returncode == -9
    )


def test_every_failpoint_that_is_named_is_reached_at_one_place_and_no_other_is() -> None:
    sources = [path.read_text() for folder in ("backend", "executor") for path in (ROOT / folder).rglob("*.py")]
    reached = re.findall(r'\breach\("(\w+)"\)', "\n".join(sources))
    assert sorted(reached) == sorted(NAMES)

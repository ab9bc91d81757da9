"""Tests of failpoints: plans are parsed strictly, each one acts once, and the product reaches all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from backend.config import load_settings
from backend.errors import ConfigError
from backend.failpoints import NAMES, FailpointReached, arm, reach
from tests import ROOT


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def test_a_failpoint_acts_once_at_its_count() -> None:
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
def test_an_invalid_plan_prevents_the_start(plan: str) -> None:
    with pytest.raises(ConfigError, match="FAILPOINTS"):
        load_settings(files=(), failpoints=plan)


def test_the_action_kill_ends_the_process() -> None:
    code = "from backend.failpoints import arm, reach; arm('mid_chunk=1:kill'); reach('mid_chunk')"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, stderr=subprocess.DEVNULL).returncode == -9
    )


def test_each_failpoint_is_reached_at_exactly_one_place() -> None:
    sources = [path.read_text() for folder in ("backend", "executor") for path in (ROOT / folder).rglob("*.py")]
    reached = re.findall(r'\breach\("(\w+)"\)', "\n".join(sources))
    assert sorted(reached) == sorted(NAMES)

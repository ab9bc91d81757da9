"""Checks the Spin model of ownership, stream and completion: it holds, and each rule of the design is necessary.

`make test` drops one rule of each model, `make faults` every rule: each costs a compilation.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ROOT
from tests.faults.scale import FULL
from tests.servers.spin_install import HINT, find_or_install
from tests.speed import limit

CHECK = ROOT / "docs" / "model" / "check.py"


@pytest.mark.timeout(600)
def test_the_model_holds_its_properties_and_breaks_one_without_each_rule() -> None:
    if not find_or_install():
        pytest.skip(HINT)
    rules = [] if FULL else ["FENCE", "DEDUP"]
    done = subprocess.run(
        [sys.executable, CHECK, *rules], capture_output=True, text=True, check=False, timeout=limit(580)
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.count(" kept ") == 3
    assert done.stdout.count(" broken ") == (len(rules) or 10)

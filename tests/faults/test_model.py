"""The model of ownership, stream and completion keeps its promises, and each rule of the design counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.spin_install import HINT, find_or_install
from tests.speed import limit

CHECK = Path(__file__).parents[2] / "docs" / "model" / "check.py"


@pytest.mark.timeout(600)
def test_the_model_keeps_its_promises_and_breaks_one_without_each_rule() -> None:
    if not find_or_install():
        pytest.skip(HINT)
    done = subprocess.run([sys.executable, CHECK], capture_output=True, text=True, check=False, timeout=limit(580))
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.count(" kept ") == 3
    assert done.stdout.count(" broken ") == 10

"""The memory that a child takes for the largest picture."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from backend.files.reading import MAX_PIXELS

CHILD = Path(__file__).parents[2] / "backend/files/child.py"


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_two_of_the_largest_pictures_fit_into_a_container(mode: str) -> None:
    with tempfile.TemporaryFile() as given:
        Image.new(mode, (6_300, 6_300)).save(given, "PNG", compress_level=1)
        given.flush()
        given.seek(0)
        command = [sys.executable, "-I", str(CHILD), "picture", str(MAX_PIXELS)]
        child = subprocess.Popen(command, stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    assert used.ru_maxrss < 430_000  # kB; two of them run in a container of 1 GiB, beside the API

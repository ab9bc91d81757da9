"""The memory that a child takes for the largest picture."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from backend.files.reading import MAX_PIXELS

CHILD = Path(__file__).parents[2] / "backend/files/child.py"
_MEASURE = """
import resource, subprocess, sys
subprocess.run(
    [sys.executable, "-I", sys.argv[1], "picture", sys.argv[2]], check=True,
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Between the tests and the child: the memory of a large process counts for those that it forks."""


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_two_of_the_largest_pictures_fit_into_a_container(mode: str) -> None:
    with tempfile.TemporaryFile() as given:
        Image.new(mode, (6_300, 6_300)).save(given, "PNG", compress_level=1)
        given.flush()
        given.seek(0)
        command = [sys.executable, "-I", "-c", _MEASURE, str(CHILD), str(MAX_PIXELS)]
        used = int(subprocess.run(command, stdin=given, stdout=subprocess.PIPE, check=True).stdout)
    assert used < 430_000  # kB; two of them run in a container of 1 GiB, beside the API

"""Tests of the report of a failed test: at most ten lines with the seed and the path of the full report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.reporting import shorten

PLUGIN = """
from pathlib import Path
from tests.reporting import ShortFailures

def pytest_configure(config):
    config.pluginmanager.register(ShortFailures(Path(__file__).parent / "failures"))
"""


def run(folder: Path, test: str) -> tuple[str, str]:
    """Runs pytest on a file with that test. Returns what it printed and the full report."""
    (folder / "conftest.py").write_text(PLUGIN)
    (folder / "test_it.py").write_text(test)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", "test_it.py")
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (whole,) = (folder / "failures").glob("*.txt")
    return done.stdout, whole.read_text()


def failure_lines(printed: str) -> list[str]:
    """Returns the lines of the only failure, without the headings of pytest."""
    block = printed.partition("= FAILURES =")[2].partition("= short test summary")[0]
    return [line for line in block.splitlines() if line.strip("=_ ") and not line.startswith("_")]


def test_a_failure_is_printed_in_ten_lines_and_written_to_a_file_in_full(tmp_path: Path) -> None:
    printed, whole = run(
        tmp_path,
        "def test_sum():\n    print('FAULT_SEED=17')\n    for n in range(500): print('a line of a log', n)\n"
        "    assert [1, 2] == list(range(100)), 'the sums differ'\n",
    )
    lines = failure_lines(printed)
    assert len(lines) <= 10, printed
    assert lines[0].startswith("test_it.py::test_sum failed in its call after ")
    assert any("the sums differ" in line for line in lines)
    assert any("FAULT_SEED=17" in line for line in lines)
    assert "a line of a log" not in printed
    assert "a line of a log 499" in whole
    assert lines[-1].endswith(".txt")


def test_a_failure_in_a_task_group_is_reported_by_its_innermost_error(tmp_path: Path) -> None:
    printed, whole = run(
        tmp_path,
        "import asyncio\nasync def fails():\n    raise RuntimeError('this is what failed')\n"
        "async def all():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(fails())\n"
        "def test_group():\n    asyncio.run(all())\n",
    )
    lines = failure_lines(printed)
    assert len(lines) <= 10, printed
    assert any("RuntimeError: this is what failed" in line for line in lines)
    assert "this is what failed" in whole


def test_a_failure_in_the_setup_is_reported_as_such(tmp_path: Path) -> None:
    report = pytest.TestReport(
        "tests/unit/test_x.py::test_y[a b]", ("", 0, ""), {}, "failed", "E   ValueError: no", "setup", duration=1.25
    )
    shorten(report, tmp_path)
    assert str(report.longrepr).splitlines()[:2] == [
        "tests/unit/test_x.py::test_y[a b] failed in its setup after 1.2 s", "  ValueError: no",
    ]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["tests-unit-test_x.py-test_y-a-b-.setup.txt"]

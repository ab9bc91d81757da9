"""What a test run says of a failure: ten lines at most, with the seed, and where the rest is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import ROOT
from tests.reporting import shorten

_PLUGIN = """
from pathlib import Path
from tests.reporting import ShortFailures

def pytest_configure(config):
    config.pluginmanager.register(ShortFailures(Path(__file__).parent / "failures"))
"""


def run(folder: Path, test: str) -> tuple[str, str]:
    """What pytest prints for a file with that test, and what the whole report holds."""
    (folder / "conftest.py").write_text(_PLUGIN)
    (folder / "test_it.py").write_text(test)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", "test_it.py")
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (whole,) = (folder / "failures").iterdir()
    return done.stdout, whole.read_text()


def between(printed: str) -> list[str]:
    """The lines of the one failure, without pytest's frame around it."""
    block = printed.partition("= FAILURES =")[2].partition("= short test summary")[0]
    return [line for line in block.splitlines() if line.strip("=_ ") and not line.startswith("_")]


def test_a_failure_takes_ten_lines_and_all_of_it_is_in_a_file(tmp_path: Path) -> None:
    printed, whole = run(
        tmp_path,
        "def test_sum():\n    print('FAULT_SEED=17')\n    for n in range(500): print('a line of a log', n)\n"
        "    assert [1, 2] == list(range(100)), 'the sums differ'\n",
    )
    lines = between(printed)
    assert len(lines) <= 10, printed
    assert lines[0].startswith("test_it.py::test_sum failed in its call after ")
    assert any("the sums differ" in line for line in lines)
    assert any("FAULT_SEED=17" in line for line in lines)
    assert "a line of a log" not in printed
    assert "a line of a log 499" in whole
    assert lines[-1].endswith(".txt")


def test_a_failure_in_a_task_group_is_told_by_its_innermost_error(tmp_path: Path) -> None:
    printed, whole = run(
        tmp_path,
        "import asyncio\nasync def fails():\n    raise RuntimeError('this is what failed')\n"
        "async def all():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(fails())\n"
        "def test_group():\n    asyncio.run(all())\n",
    )
    lines = between(printed)
    assert len(lines) <= 10, printed
    assert any("RuntimeError: this is what failed" in line for line in lines)
    assert "this is what failed" in whole


def test_what_fails_in_the_preparation_says_so(tmp_path: Path) -> None:
    report = pytest.TestReport(
        "tests/unit/test_x.py::test_y[a b]", ("", 0, ""), {}, "failed", "E   ValueError: no", "setup", duration=1.25
    )
    shorten(report, tmp_path)
    assert str(report.longrepr).splitlines()[:2] == [
        "tests/unit/test_x.py::test_y[a b] failed in its setup after 1.2 s", "  ValueError: no",
    ]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["tests-unit-test_x.py-test_y-a-b-.setup.txt"]

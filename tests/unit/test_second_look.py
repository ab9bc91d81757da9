"""Tests of the second look: a test that failed is repeated alone, and its first report is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.reporting import NAMES
from tests.second_look import second_look
from tests.unit.test_reporting import PLUGIN

_ONCE = """
from pathlib import Path
import pytest

def test_that_passes():
    pass

@pytest.mark.parametrize("name", ["a b", "c"])
def test_that_fails_once(name):
    mark = Path(__file__).parent / name
    seen = mark.exists()
    mark.touch()
    assert seen

@pytest.fixture
def broken():
    yield
    assert FAILS_ONCE

def test_whose_end_fails(broken):
    pass
"""


def run_once(folder: Path, *, fails_once: bool) -> tuple[Path, Path]:
    """Runs a file with failing tests. Returns the folders of the reports and of those that are kept."""
    (folder / "conftest.py").write_text(PLUGIN)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(_ONCE.replace("FAILS_ONCE", str(fails_once)))
    subprocess.run((sys.executable, "-m", "pytest", "-q"), cwd=folder, capture_output=True, check=False)
    return folder / "failures", folder / "unsteady"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_tests_that_pass_alone_are_named_and_their_reports_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports, kept = run_once(tmp_path, fails_once=True)
    assert second_look(reports, kept, 2, root=tmp_path) == 0
    failed = ["test_it.py::test_that_fails_once[a b]", "test_it.py::test_that_fails_once[c]"]
    assert (kept / NAMES).read_text().splitlines() == failed
    assert len(list(kept.glob("*.txt"))) == 2
    printed = capsys.readouterr().out
    assert all(test in printed for test in failed)


def test_a_test_that_fails_again_fails_the_run(tmp_path: Path) -> None:
    reports, kept = run_once(tmp_path, fails_once=False)
    assert second_look(reports, kept, 3, root=tmp_path) == 1
    assert (reports / NAMES).read_text().splitlines() == ["test_it.py::test_whose_end_fails"]


def test_many_failures_are_not_repeated(tmp_path: Path) -> None:
    reports, kept = run_once(tmp_path, fails_once=True)
    assert second_look(reports, kept, 1, root=tmp_path) == 1
    assert reports.exists()
    assert not kept.exists()


def test_a_run_without_reports_is_not_repeated(tmp_path: Path) -> None:
    assert second_look(tmp_path / "failures", tmp_path / "unsteady", 5, root=tmp_path) == 1

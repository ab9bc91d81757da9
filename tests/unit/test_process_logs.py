"""Tests of `logs_of`: a report has the logs that a failed test has left in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from tests.process_logs import MOST_FILES, TAIL, logs_of


def test_a_report_has_the_newest_logs_of_the_tests_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "rows.json").write_text("no log")
    for n in range(MOST_FILES + 2):
        file = tmp_path / "data" / f"executor-{n}.log"
        file.write_text("x" * TAIL + f"the end of {n}")
        os.utime(file, (n, n))
    found = logs_of({"tmp_path": tmp_path, "seed": 7})
    assert [name for name, _ in found] == [f"data/executor-{n}.log" for n in range(2, MOST_FILES + 2)]
    assert all(len(text) == TAIL for _, text in found)
    assert found[-1][1].endswith(f"the end of {MOST_FILES + 1}")


def test_a_test_without_a_folder_has_no_logs() -> None:
    assert logs_of({"tmp_path": None}) == []

"""A pytest plugin that shortens the report of a failure to ten lines and writes the whole report, with logs, to a file.

Register it in the process that prints, not in the workers of xdist.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests import ROOT

FAILURES = ROOT / ".cache" / "failures"
NAMES = "tests"
"""A file in the folder of the reports: the ids of the tests that failed, one per line."""
_LINES, _WIDTH = 6, 200
_SEED = re.compile(r"FAULT_SEED=\d+|@seed\(\d+\)|@reproduce_failure\([^)]*\)")
_RAISED = re.compile(r"^E  +(.*)$|^[ |]*([\w.]+(?:Error|Exception|Timeout|Failed|Exited)\b:?.*)$", re.MULTILINE)
_WHERE = re.compile(
    r"^[ |]*(?:File \"(?P<file>[^\"]+)\", line (?P<line>\d+)|(?P<short>tests/\S+\.py:\d+))", re.MULTILINE
)


class ShortFailures:
    """Shortens each failed report before the terminal reporter sees it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed: dict[str, None] = {}

    def pytest_sessionstart(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            shorten(report, self._folder)
            self._failed[report.nodeid] = None
            (self._folder / NAMES).write_text("".join(f"{test}\n" for test in self._failed))


def shorten(report: pytest.TestReport, folder: Path) -> None:
    """Writes the whole report to a file in `folder` and cuts the report to ten lines."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (re.sub(r"[^\w.-]+", "-", report.nodeid)[-150:] + f".{report.when}.txt")
    text = report.longreprtext
    sections = "".join(f"\n\n----- {name} -----\n{content}" for name, content in report.sections)
    whole = f"{report.nodeid}\n\n{text}{sections}\n"
    file.write_text(whole, encoding="utf-8", errors="backslashreplace")  # the text may contain half a surrogate pair
    report.longrepr = "\n".join(_summary(report, text, sections, file))
    report.sections = []


def _summary(report: pytest.TestReport, text: str, sections: str, file: Path) -> Iterator[str]:
    yield f"{report.nodeid} failed in its {report.when} after {report.duration:.1f} s"
    if where := _places(text):
        yield f"  at {where[-1]}"
    yield from (f"  {line[:_WIDTH]}" for line in _message_lines(text))
    if seeds := dict.fromkeys(_SEED.findall(text + sections)):
        yield "  " + " ".join(seeds)
    yield f"  full report: {file}"


def _places(text: str) -> list[str]:
    """Returns the places in this project's tests and sources, the innermost last."""
    found = [match["short"] or f"{match['file']}:{match['line']}" for match in _WHERE.finditer(text)]
    ours = [place for place in found if "site-packages" not in place and "/lib/python" not in place]
    return [place for place in ours if "tests/" in place] or ours


def _message_lines(text: str) -> Sequence[str]:
    """Returns the lines with the failure's message: pytest's `E` lines, or the innermost exceptions of a group."""
    marked = [match[1] for match in _RAISED.finditer(text) if match[1] is not None]
    raised = [match[2] for match in _RAISED.finditer(text) if match[2] is not None and "sub-exception" not in match[2]]
    lines = [line for line in marked if line.strip()] or raised[-_LINES:] or text.strip().splitlines()[-_LINES:]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], f"... {len(lines) - _LINES + 1} more lines"]

"""Prints the CPU seconds of each test file: `pytest -p tests.cpu TESTS`, with or without `-n`.

The seconds of a file are those of the test process and of all processes below it, from the file's first set-up to its
last tear-down; the last file of a process ends before that. What several files share, as a worker's RabbitMQ node,
counts for the file that runs when it is used. A process that has left its parent does not count. Unlike durations,
these figures hardly depend on other work of the machine.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_TICKS = os.sysconf("SC_CLK_TCK")
_OUTPUT = "cpu of files"
SHOWN = 30


class _Cpu:
    """The seconds of the files that this process, or a worker of it, has run."""

    def __init__(self) -> None:
        self.of_files: Counter[str] = Counter()
        self._file = ""
        self._before: float | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        if self._before is None:
            self._file = str(item.path.relative_to(item.config.rootpath))
            self._before = seconds_below(os.getpid())
        try:
            return (yield)
        finally:
            if nextitem is None or nextitem.path != item.path:
                self._end_file()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> None:
        if (
            nextitem is None
        ):  # afterwards, what the session has shared has ended, and chromium waits for none of its own
            self._end_file()

    def _end_file(self) -> None:
        if self._before is not None:
            self.of_files[self._file] += seconds_below(os.getpid()) - self._before
            self._before = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.of_files.update(node.workeroutput.get(_OUTPUT, {}))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._end_file()  # of an interrupted run
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[_OUTPUT] = dict(self.of_files)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section(f"CPU seconds: {sum(self.of_files.values()):.0f} in all")
        for file, seconds in self.of_files.most_common(SHOWN):
            terminalreporter.line(f"{seconds:7.1f} {file}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Cpu())


def seconds_below(pid: int) -> float:
    """Returns the CPU seconds of a process, its living descendants, and those that any of them has waited for."""
    children, ticks = defaultdict[int, list[int]](list), dict[int, int]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        number = int(stat.parent.name)
        children[int(fields[1])].append(number)
        ticks[number] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    found, total = [pid], 0
    while found:
        one = found.pop()
        total += ticks.get(one, 0)
        found += children[one]
    return total / _TICKS

"""The limit of open files: raised where it may be, and told where it is low. In a process of its own."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import resource, sys
from backend.logs import configure_logs
from backend.open_files import raise_open_files_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
configure_logs("INFO", "json")
print(raise_open_files_limit(enough=100))
"""


def started(soft: int, hard: int) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(soft), str(hard)], check=True, capture_output=True, text=True
    )
    return done.stdout.strip(), done.stderr


def test_few_open_files_are_told_at_the_start() -> None:
    limit, log = started(64, 64)
    assert limit == "64"
    assert '"level":"warning"' in log
    assert '"limit":64' in log


def test_a_soft_limit_is_raised_to_the_hard_one_without_a_word() -> None:
    assert started(64, 200) == ("200", "")

"""Finds libfaketime, or installs it. `python -m tests.servers.faketime_install` prints a hint if it cannot.

Without libfaketime only the tests of wrong clocks are skipped, with a message.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.servers.debian import can_install, install

HINT = "wrong clocks are not tested: sudo apt-get install -y faketime"


def find_or_install() -> Path | None:
    """Returns the path of the library to preload, or None if there is none and it cannot be installed."""
    if (found := _find()) is None and can_install():
        install("faketime")
        found = _find()
    return found


def _find() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

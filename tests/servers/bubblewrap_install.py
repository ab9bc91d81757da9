"""Finds bubblewrap, or installs it. `python -m tests.servers.bubblewrap_install` prints a hint if it cannot.

Without bubblewrap only the tests of the sandbox are skipped, with a message.
"""

from __future__ import annotations

import sys

from executor.sandbox.bubblewrap import find_bubblewrap
from tests.servers.debian import can_install, install

HINT = "no sandbox is tested: sudo apt-get install -y bubblewrap"


def find_or_install() -> str | None:
    """Returns the path of bwrap, or None if there is none and it cannot be installed."""
    if (found := find_bubblewrap()) is None and can_install():
        install("bubblewrap")
        found = find_bubblewrap()
    return found


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

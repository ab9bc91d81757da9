"""Finds Debian's Firefox ESR, or installs it. `python -m tests.servers.firefox_install` prints a hint if it cannot.

Without it only the tests of the page in Firefox are skipped, with a message.
"""

from __future__ import annotations

import shutil
import sys

from tests.servers.debian import can_install, install

HINT = "the page is not tested in Firefox: sudo apt-get install -y firefox-esr"


def find() -> str | None:
    """Returns the path of Firefox ESR, or None."""
    return shutil.which("firefox-esr")


def find_or_install() -> str | None:
    if find() is None and can_install():
        install("firefox-esr")
    return find()


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

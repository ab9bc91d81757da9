"""Finds Debian's chromium, or installs it. `python -m tests.servers.chromium_install` prints a hint if it cannot.

It prefers the headless shell, which is the same engine without the browser's own window: the toolbars of that window
are pages, and cost a third of a second of CPU for each user that a test opens.
Without a browser the tests of the page are skipped with a message. No browser is downloaded from anywhere else.
"""

from __future__ import annotations

import shutil
import sys

from tests.servers.debian import can_install, install

HINT = "the page is not tested: sudo apt-get install -y chromium-headless-shell"
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """Returns the path of a browser that tests can drive, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)


def find_or_install() -> str | None:
    for package in ("chromium-headless-shell", "chromium"):  # Debian has the shell since version 132
        if find() is None and can_install():
            install(package)
    return find()


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

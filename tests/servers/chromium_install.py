"""Finds Debian's chromium, or gets it: `python -m tests.servers.chromium_install` says so when it cannot.

Best is the headless shell: the same engine without the browser's own window, whose toolbars are pages that cost a third
of a second of CPU for each user that a test opens.
Without it the tests of the page are left out, loudly; nothing here downloads a browser from elsewhere.
"""

from __future__ import annotations

import shutil
import sys

from tests.servers.debian import can_install, install

HINT = "the page is not tested: sudo apt-get install -y chromium-headless-shell"
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """The path of a browser that can be driven."""
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)


def find_or_install() -> str | None:
    for package in ("chromium-headless-shell", "chromium"):  # Debian has the shell since version 132
        if find() is None and can_install():
            install(package)
    return find()


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

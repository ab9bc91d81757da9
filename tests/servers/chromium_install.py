"""Finds Debian's chromium, or gets it: `python -m tests.servers.chromium_install` says so when it cannot.

Without it the tests of the page are left out, loudly; nothing here downloads a browser from elsewhere.
"""

from __future__ import annotations

import shutil
import sys

from tests.servers.debian import can_install, install

HINT = "the page is not tested: sudo apt-get install -y chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """The path of a browser that can be driven."""
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)


def find_or_install() -> str | None:
    if find() is None and can_install():
        install("chromium")
    return find()


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

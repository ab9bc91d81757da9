"""Finds Spin, the model checker, or gets it: `python -m tests.servers.spin_install` says so when it cannot.

Without it only the check of docs/model is left out, loudly.
"""

from __future__ import annotations

import shutil
import sys

from tests.servers.debian import can_install, install

HINT = "docs/model is not checked: sudo apt-get install -y spin gcc"


def find_or_install() -> bool:
    for program in ("spin", "gcc"):
        if shutil.which(program) is None and can_install():
            install(program)
    return shutil.which("spin") is not None and shutil.which("gcc") is not None


if __name__ == "__main__" and not find_or_install():
    print(HINT, file=sys.stderr)

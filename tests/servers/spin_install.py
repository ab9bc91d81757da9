"""Finds Spin, the model checker, or installs it. `python -m tests.servers.spin_install` prints a hint if it cannot.

Without Spin only the check of docs/model is skipped, with a message.
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

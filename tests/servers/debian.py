"""Debian packages that tests need, installed where that can be done: as root, with apt-get."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def can_install() -> bool:
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def install(package: str) -> None:
    """Without starting the package's service: tests start servers of their own. Whoever asked looks if it worked."""
    print(f"Installing {package} for the tests", file=sys.stderr)
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wanted = ("apt-get", "install", "-y", "--no-install-recommends", package)
    try:
        for command, limit in ((("apt-get", "update", "-q"), 300), (wanted, 900)):
            subprocess.run(command, env=quiet, check=False, timeout=limit, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    finally:
        if ours:
            policy.unlink(missing_ok=True)

"""Installs Debian packages that tests need. This needs root and apt-get."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def can_install() -> bool:
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def install(package: str) -> None:
    """Installs a package without starting its service, because tests start their own servers. Raises nothing when
    apt-get fails, so the caller must check the result."""
    print(f"Installing {package} for the tests", file=sys.stderr)
    policy = Path("/usr/sbin/policy-rc.d")
    created = not policy.exists()
    if created:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wanted = ("apt-get", "install", "-y", "--no-install-recommends", package)
    try:
        for command, limit in ((("apt-get", "update", "-q"), 300), (wanted, 900)):
            subprocess.run(command, env=quiet, check=False, timeout=limit, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    finally:
        if created:
            policy.unlink(missing_ok=True)

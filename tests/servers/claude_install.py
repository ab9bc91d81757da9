"""Installs the Claude Agent SDK: `python -m tests.servers.claude_install` prints a hint if that fails.

The package (360 MB, nearly all of it one program) goes into a folder of its own in `.cache`, which takes 4 s of CPU.
What it depends on is installed with the tests. Without it only its own tests are skipped, with a message.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.servers.mcp_install import CACHE, install

HOME = CACHE / "claude"
PACKAGE = "claude-agent-sdk==0.2.184"
HINT = f"no Claude Agent SDK is tested: pip cannot install {PACKAGE} here"


def find_or_install() -> Path | None:
    """Returns the folder to import it from. None if it cannot be installed here."""
    options = ("-q", "--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary", ":all:")
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", HOME / "packages", PACKAGE]
    return HOME / "packages" if install(HOME, [pip]) else None


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

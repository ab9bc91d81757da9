"""Installs LiteLLM's proxy: `python -m tests.servers.litellm_install` prints a hint if that fails.

The packages (600 MB) go into their own environment in `.cache`, which takes 25 s of CPU. They are not compiled: a start
needs few of them. Without them only `tests/integration/test_litellm.py` is skipped, with a message.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.servers.mcp_install import CACHE, install

HOME = CACHE / "litellm"
PACKAGE = "litellm[proxy]==1.108.7"
HINT = f"no real proxy is tested: pip cannot install {PACKAGE} here"


def find_or_install() -> Path | None:
    """Returns the program. None if it cannot be installed here."""
    options = ("-q", "--disable-pip-version-check", "--no-compile", "--only-binary", ":all:")
    pip = [HOME / "bin" / "python", "-m", "pip", "install", *options, PACKAGE]
    done = install(HOME, [[sys.executable, "-m", "venv", HOME], pip])
    return HOME / "bin" / "litellm" if done else None


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

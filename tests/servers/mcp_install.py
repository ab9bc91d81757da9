"""Installs MCP servers that have tasks: `python -m tests.servers.mcp_install` prints a hint for each that it cannot.

They are fastmcp 4 with its extension for tasks, and server-everything. Each goes into a folder of its own in `.cache`,
from PyPI and npm. Without them only their tests are skipped.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests import ROOT
from tests.speed import limit

CACHE = ROOT / ".cache"
FASTMCP, EVERYTHING = CACHE / "fastmcp", CACHE / "everything"
PACKAGES = ("fastmcp==4.1.4", "fastmcp-tasks==4.1.4")
PACKAGE = "@modelcontextprotocol/server-everything@2026.8.31"
FASTMCP_HINT = f"no tasks of fastmcp are tested: pip cannot install {PACKAGES[1]} here"
EVERYTHING_HINT = f"no tasks of server-everything are tested: npm cannot install {PACKAGE} here"


def find_or_install_fastmcp() -> Path | None:
    """Returns the interpreter that has fastmcp. None if it cannot be installed here."""
    python = FASTMCP / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:", *PACKAGES]
    return python if install(FASTMCP, [[sys.executable, "-m", "venv", FASTMCP], pip]) else None


def find_or_install_everything() -> Path | None:
    """Returns the program of server-everything, which node runs. None if it cannot be installed here."""
    if shutil.which("npm") is None:
        return None
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", EVERYTHING, PACKAGE]
    program = EVERYTHING / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    return program if install(EVERYTHING, [npm]) else None


def install(home: Path, commands: Sequence[Sequence[str | Path]]) -> bool:
    """Runs the commands once for the folder `home`. Returns False if one of them fails."""
    home.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            print(f"Installing {home.name} for the tests", file=sys.stderr)
            for command in commands:
                done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit(300))
                if done.returncode != 0:
                    print(done.stderr[-2_000:], file=sys.stderr)
                    return False
            (home / "complete").touch()
    return True


if __name__ == "__main__":
    for find, hint in ((find_or_install_fastmcp, FASTMCP_HINT), (find_or_install_everything, EVERYTHING_HINT)):
        if find() is None:
            print(hint, file=sys.stderr)

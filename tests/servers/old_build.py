"""Unpacks an older build of this project from the git history, to run it beside the current one.

Its programs run with the interpreter of the tests and their packages. The packages that only the old build needs go
into a folder of its own in `.cache`, from PyPI.
"""

from __future__ import annotations

import fcntl
import io
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT
from tests.speed import limit

COMMIT = "d32ccf1"
"""The build from which operators must be able to upgrade without a pause."""
_PACKAGES = ("pydantic-settings==2.16.3",)
HINT = f"no upgrade is tested: the history has no {COMMIT}, or pip cannot install {_PACKAGES[0]} here"


@dataclass(frozen=True, slots=True)
class OldBuild:
    """The folder of the old source, and PYTHONPATH for its programs."""

    source: Path
    python_path: str


def find_or_unpack() -> OldBuild | None:
    """Returns the old build. None if the history of this clone does not have it or its packages cannot be had."""
    home = ROOT / ".cache" / COMMIT
    source, packages = home / "source", home / "packages"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            archive = subprocess.run(
                ["git", "archive", "--format=tar", COMMIT],
                cwd=ROOT,
                check=False,
                capture_output=True,
                timeout=limit(60),
            )
            pip = [
                *(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"),
                *("--upgrade", "--target", packages, *_PACKAGES),
            ]
            if archive.returncode or subprocess.run(pip, check=False, timeout=limit(120)).returncode:
                return None
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
                tar.extractall(source, filter="data")
            (home / "complete").touch()
    return OldBuild(source, f"{source}:{packages}")

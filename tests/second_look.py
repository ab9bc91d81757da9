"""`python -m tests.second_look`: repeats the tests that failed in the last run, with nothing beside them.

The exit code is 0 if all of them pass now. Each of them still has a fault, its own or the product's: the reports of the
first run stay in `.cache/unsteady`. More failures than `--most` are not repeated, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.reporting import FAILURES, NAMES

UNSTEADY = FAILURES.parent / "unsteady"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.second_look", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--most", type=int, default=5, help="repeat at most so many tests (5)")
    return second_look(FAILURES, UNSTEADY, parser.parse_args().most, root=ROOT)


def second_look(reports: Path, kept: Path, most: int, root: Path) -> int:
    """Repeats the tests that failed, whose reports are in the folder `reports`. Moves these to the folder `kept`.

    Returns the exit code: 1 if there are no reports or more than `most`, and otherwise that of the second run.
    """
    names = reports / NAMES
    failed = names.read_text().splitlines() if names.exists() else []
    if not 0 < len(failed) <= most:
        print(f"{len(failed)} tests failed; up to {most} are repeated alone")
        return 1
    shutil.rmtree(kept, ignore_errors=True)
    reports.rename(kept)
    print(f"Repeating what failed, with nothing beside it: {len(failed)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", *failed], cwd=root, check=False).returncode
    if code == 0:
        print(f"Passed alone. Each of these has a fault, its own or the product's; see {kept}:", *failed, sep="\n  ")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.firm TESTS`: runs a selection of tests many times and prints each failure with its seed.

Every second run is under load: processes use every core, and one writes to the disk. Each run has its own seed for the
fault tests (FAULT_SEED) and for hypothesis. The whole report of a failed run goes to .cache/firm/SEED. The exit code is
1 if a run failed.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import speed
from tests.reporting import FAILURES

KEPT = FAILURES.parent / "firm"
_BURN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000): pass
"""
_WRITE = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    with open(sys.argv[2], "wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the selection. The same seed repeats it."""

    number: int
    seed: int
    loaded: bool

    @property
    def name(self) -> str:
        return f"run {self.number}, seed {self.seed}, {'under load' if self.loaded else 'alone'}"


def main() -> int:
    options = _options()
    first = options.seed if options.seed is not None else random.randrange(1 << 31)
    failed = []
    for number in range(options.times):
        loaded = options.load == "always" or (options.load == "half" and number % 2 == 1)
        run = Run(number + 1, first + number, loaded)
        with ExitStack() as load:
            if loaded:
                load.enter_context(loading())
            began = time.monotonic()
            code, output = _run_pytest(run, options.tests)
        took = time.monotonic() - began
        print(f"{run.name}: {_last_line(output)} ({took:.0f} s in all)", flush=True)
        if code != 0:
            failed.append(run)
            print(_keep_reports(run, output), flush=True)
    print(f"{options.times - len(failed)} of {options.times} runs passed")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.firm", description=__doc__.partition(": ")[2].split("\n\n")[0]
    )
    parser.add_argument("--times", type=int, default=20, help="number of runs (20)")
    parser.add_argument(
        "--load", choices=("half", "always", "never"), default="half", help="which runs are under load (half)"
    )
    parser.add_argument("--seed", type=int, help="seed of the first run; each later run adds one")
    parser.add_argument("tests", nargs="+", help="arguments for pytest: files, test ids, options after --")
    return parser.parse_args()


def _run_pytest(run: Run, tests: Sequence[str]) -> tuple[int, str]:
    environment = {**os.environ, "FAULT_SEED": str(run.seed)}
    command = (sys.executable, "-m", "pytest", "-q", f"--hypothesis-seed={run.seed}", *tests)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def _last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "it printed nothing")


def _keep_reports(run: Run, output: str) -> str:
    """Moves the reports of a failed run into a folder of its own. Returns the part of the output about its failures."""
    folder = KEPT / f"{run.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.txt").write_text(output)
    for report in FAILURES.glob("*.txt") if FAILURES.exists() else ():
        report.replace(folder / report.name)
    _, _, failures = output.partition("= FAILURES =")
    _, _, errors = output.partition("= ERRORS =")
    return (errors or failures or output)[-6_000:].replace(str(FAILURES), str(folder))


@contextmanager
def loading() -> Iterator[None]:
    """Uses every core, and writes to the disk, until the block is left."""
    with tempfile.TemporaryDirectory() as folder:
        cores = len(os.sched_getaffinity(0))
        parent = str(os.getpid())  # the processes end when this one does, even after SIGKILL
        commands = [("-c", _BURN, parent)] * cores + [("-c", _WRITE, parent, str(Path(folder) / "written"))]
        hogs = [subprocess.Popen((sys.executable, "-I", *command)) for command in commands]
        try:
            yield
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()


if __name__ == "__main__":
    print(f"this machine is {speed.measure():.1f} times slower than the usual one", flush=True)
    sys.exit(main())

"""`python -m tests.firm TESTS`: runs a selection many times, also beside load, and tells each failure with its seed.

Half of the runs are alone, half run beside processes that burn every core and one that writes to the disk. Each run has
a seed of its own, for the fault tests (FAULT_SEED) and for hypothesis; the failure's whole report is kept in
.cache/firm/SEED. Exits with 1 when a run failed.
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
    """One run of the selection. `seed` repeats it."""

    number: int
    seed: int
    loaded: bool

    @property
    def name(self) -> str:
        return f"run {self.number}, seed {self.seed}, {'beside load' if self.loaded else 'alone'}"


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
            code, output = _once(run, options.tests)
        took = time.monotonic() - began
        print(f"{run.name}: {_last_line(output)} ({took:.0f} s in all)", flush=True)
        if code != 0:
            failed.append(run)
            print(_kept(run, output), flush=True)
    print(f"{options.times - len(failed)} of {options.times} runs passed")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.firm", description=__doc__.partition(": ")[2].split("\n\n")[0]
    )
    parser.add_argument("--times", type=int, default=20, help="how often (20)")
    parser.add_argument(
        "--load", choices=("half", "always", "never"), default="half", help="which runs are beside load"
    )
    parser.add_argument("--seed", type=int, help="of the first run; each later run adds one")
    parser.add_argument("tests", nargs="+", help="what pytest takes: files, test ids, options behind --")
    return parser.parse_args()


def _once(run: Run, tests: Sequence[str]) -> tuple[int, str]:
    environment = {**os.environ, "FAULT_SEED": str(run.seed)}
    command = (sys.executable, "-m", "pytest", "-q", f"--hypothesis-seed={run.seed}", *tests)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def _last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "it printed nothing")


def _kept(run: Run, output: str) -> str:
    """Moves what a failed run left into a folder of its own; returns what it says of its failures."""
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
    """Burns every core, and writes to the disk, until the block is left."""
    with tempfile.TemporaryDirectory() as folder:
        cores = len(os.sched_getaffinity(0))
        ours = str(os.getpid())  # they end when this process does, however it ends
        commands = [("-c", _BURN, ours)] * cores + [("-c", _WRITE, ours, str(Path(folder) / "written"))]
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

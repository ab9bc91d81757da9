"""Fuzzes the named targets, or all: `python -m tests.fuzz [TARGET ...] --seconds 600`. Needs atheris.

New inputs are kept in `.cache/fuzz/TARGET`, those that break a promise in `.cache/fuzz/broken`. `tests/fuzz/corpus` has
the seeds, which only a person changes.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

SEEDS = Path(__file__).parent / "corpus"
FOUND = Path(".cache/fuzz")
BROKEN = FOUND / "broken"
SLOWEST_S, MOST_MB, LONGEST = 10, 1_024, 16_384
"""An input that takes longer, or more memory, breaks the promise of its target."""


def fuzz(name: str, seconds: int) -> None:
    """Fuzzes one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["backend", "executor"]):
        from tests.fuzz.targets import TARGETS

    def run(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except BaseException:  # atheris ends the process without keeping the input, unless it is too slow or too large
            (BROKEN / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise

    kept = FOUND / name
    kept.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MB}", f"-max_len={LONGEST}"]
    options = [*limits, "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={BROKEN}/{name}-"]
    atheris.Setup([sys.argv[0], *options, str(kept), str(SEEDS / name)], run)
    atheris.Fuzz()


def main() -> int:
    names = sorted(path.name for path in SEEDS.iterdir())
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=" ".join(names))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.targets) - set(names):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    BROKEN.mkdir(parents=True, exist_ok=True)
    if given.here:
        fuzz(given.targets[0], given.seconds)
        return 0
    broken = 0
    for name in given.targets or names:
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(given.seconds), "--here"]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        output = ended.stdout + ended.stderr
        done = [line.split()[-1] for line in output.splitlines() if "number_of_executed_units" in line]
        print(f"{name}: {done[0] if done else 'unknown'} executions, {'broken' if ended.returncode else 'no findings'}")
        if ended.returncode:
            broken += 1
            print(output[-4_000:])
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

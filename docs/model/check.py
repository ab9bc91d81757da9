"""Checks the models with Spin: the design keeps all promises, and dropping any rule breaks one.

    python docs/model/check.py [RULE ...]

Drops only the rules that are named, if any are. Needs spin and gcc. Prints a row for each check and exits with 1 if a
result is not as expected.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 300  # seconds for one command
BROKEN_BY = {
    "turn": {
        "FENCE": "new_after_old",
        "CAS": "ends_once",
        "ORDER": "end_is_true",
        "DRAIN": "readers_see_all",
        "SEAL": "tail_is_gone",
        "TRIM": "readers_see_all",
        "START": "effect_once",
    },
    "completion": {"DEDUP": "applied_once", "WHOLE": "goes_on", "KNOWN": "never_unknown"},
}
"""The rules of each model, each with the promise that must break without it."""
TOGETHER = "all_of_these"
PROMISE = re.compile(r"^ltl (\w+) +\{ (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    kept: bool
    states: int
    seconds: float


def main(chosen: Sequence[str]) -> int:
    failures = 0
    print(f"{'model':11} {'rules':13} {'promise':18} {'':8} {'states':>10} {'s':>5}")
    for model, rules in BROKEN_BY.items():
        promises = dict(PROMISE.findall((HERE / f"{model}.pml").read_text()))
        together = [promise for promise in promises if promise == TOGETHER or promises[promise] == "<>"]
        checks = [("all", None, together, True)]
        checks += [
            (f"without {rule}", f"-D{rule}=0", [promise], False)
            for rule, promise in rules.items()
            if not chosen or rule in chosen
        ]
        for name, dropped, wanted, must_hold in checks:
            for promise, verdict in verify(model, wanted, promises, dropped).items():
                right = verdict.kept is must_hold
                failures += not right
                result = ("kept" if verdict.kept else "broken") + ("" if right else "  <-- WRONG")
                print(f"{model:11} {name:13} {promise:18} {result:8} {verdict.states:10,} {verdict.seconds:5.1f}")
    return min(failures, 1)


def verify(model: str, wanted: Sequence[str], operators: dict[str, str], dropped: str | None) -> dict[str, Verdict]:
    """Returns the verdict on each promise. `dropped` is the compiler flag that drops a rule; None keeps all rules."""
    with tempfile.TemporaryDirectory(prefix="spin-") as folder:
        _run(folder, "spin", *([dropped] if dropped else []), "-a", str(HERE / f"{model}.pml"))
        level = "-O0" if dropped else "-O1"  # with all rules the search takes longer than the compiler
        _run(folder, "gcc", level, "-w", "-DNFAIR=3", "-o", "pan", "pan.c")
        return {promise: _search(folder, promise, fair=operators[promise] == "<>") for promise in wanted}


def _search(folder: str, promise: str, *, fair: bool) -> Verdict:
    """Searches for a violation. With `fair`, each process that can continue does so at some time.

    A promise that something happens at some time needs `fair`.
    """
    began = time.monotonic()
    output = _run(folder, "./pan", "-m1000000", "-a", *(["-f"] if fair else []), "-N", promise)
    errors, states = re.search(r"errors: (\d+)", output), re.search(r"([\d.e+]+) states, stored", output)
    if errors is None or states is None or "search depth too small" in output or "out of memory" in output:
        sys.exit(f"spin could not check {promise}:\n{output}")
    return Verdict(errors[1] == "0", int(float(states[1])), time.monotonic() - began)


def _run(folder: str, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT)
    if command[0] != "./pan" and done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Checks the models with Spin: the design keeps all promises, and without any one of its rules one is broken.

    python docs/model/check.py

Needs spin and gcc. Prints a row a check; exits with 1 when one of them is not as it must be.
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
LIMIT = 300
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
"""By model: each rule, and the promise that must break without it."""
TOGETHER = "all_of_these"
PROMISE = re.compile(r"^ltl (\w+) +\{ (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    kept: bool
    states: int
    seconds: float


def main() -> int:
    failures = 0
    print(f"{'model':11} {'rules':13} {'promise':18} {'':8} {'states':>10} {'s':>5}")
    for model, rules in BROKEN_BY.items():
        promises = dict(PROMISE.findall((HERE / f"{model}.pml").read_text()))
        together = [promise for promise in promises if promise == TOGETHER or promises[promise] == "<>"]
        checks = [("all", None, together, True)]
        checks += [(f"without {rule}", f"-D{rule}=0", [promise], False) for rule, promise in rules.items()]
        for name, dropped, wanted, must_hold in checks:
            for promise, verdict in verify(model, wanted, promises, dropped).items():
                right = verdict.kept is must_hold
                failures += not right
                said = ("kept" if verdict.kept else "broken") + ("" if right else "  <-- WRONG")
                print(f"{model:11} {name:13} {promise:18} {said:8} {verdict.states:10,} {verdict.seconds:5.1f}")
    return min(failures, 1)


def verify(model: str, wanted: Sequence[str], operators: dict[str, str], dropped: str | None) -> dict[str, Verdict]:
    """Each promise's verdict, with that rule dropped."""
    with tempfile.TemporaryDirectory(prefix="spin-") as folder:
        _run(folder, "spin", *([dropped] if dropped else []), "-a", str(HERE / f"{model}.pml"))
        _run(folder, "gcc", "-O0", "-w", "-DNFAIR=3", "-o", "pan", "pan.c")  # -O2 takes longer than it saves
        return {promise: _search(folder, promise, fair=operators[promise] == "<>") for promise in wanted}


def _search(folder: str, promise: str, *, fair: bool) -> Verdict:
    """`fair`: every process that can go on does so some time, which what must happen in the end relies on."""
    began = time.monotonic()
    told = _run(folder, "./pan", "-m1000000", "-a", *(["-f"] if fair else []), "-N", promise)
    errors, states = re.search(r"errors: (\d+)", told), re.search(r"([\d.e+]+) states, stored", told)
    if errors is None or states is None or "search depth too small" in told or "out of memory" in told:
        sys.exit(f"spin could not search for {promise}:\n{told}")
    return Verdict(errors[1] == "0", int(float(states[1])), time.monotonic() - began)


def _run(folder: str, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=LIMIT)
    if command[0] != "./pan" and done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

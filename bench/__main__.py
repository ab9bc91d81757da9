"""Runs all benchmarks one after the other. Usage: make bench, or python -m bench"""

from __future__ import annotations

import subprocess
import sys

PARTS = (
    "bench.starts",
    "bench.models",
    "bench.costs",
    "bench.store_costs",
    "bench.writing",
    "bench.reading",
    "bench.turns",
    "bench.search",
    "bench.page",
)

for part in PARTS:
    print(f"\n== {part}", flush=True)
    subprocess.run([sys.executable, "-m", part], check=True)

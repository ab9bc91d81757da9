"""`python -m tests.side_by_side FOLDERS -- FOLDERS -- ...`: test runs at once, each with servers of its own.

Most tests wait for processes, not for the processor, so a few runs take little longer than one. The first one's output
is shown as it comes, the others' when they have ended.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

PYTEST = (sys.executable, "-m", "pytest", "-q", "--durations=15")


def main(arguments: Sequence[str]) -> int:
    first, *others = (list(group) for is_border, group in groupby(arguments, "--".__eq__) if not is_border)
    with ExitStack() as stack:
        beside = [stack.enter_context(_run_beside(folders)) for folders in reversed(others)]
        codes = [subprocess.run([*PYTEST, *first], check=False).returncode, *(run.wait() for run in beside)]
        return next(filter(None, codes), 0)


@contextmanager
def _run_beside(folders: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Begins a run; shows its output when the block is left, and ends it then."""
    with tempfile.TemporaryFile() as output:
        run = subprocess.Popen([*PYTEST, *folders], stdout=output, stderr=subprocess.STDOUT)
        try:
            yield run
        finally:
            run.terminate()
            run.wait()
            output.seek(0)
            sys.stdout.flush()
            shutil.copyfileobj(output, sys.stdout.buffer)
            sys.stdout.flush()


if __name__ == "__main__":
    missing = [folder for folder in sys.argv[1:] if folder != "--" and not Path(folder).exists()]
    if missing:
        sys.exit(f"no such tests: {', '.join(missing)}")
    sys.exit(main(sys.argv[1:]))

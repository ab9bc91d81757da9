"""`python -m tests.side_by_side FOLDERS -- FOLDERS`: two test runs at once, each with servers of its own.

Most tests wait for processes, not for the processor, so two runs take little longer than one. The first one's output is
shown as it comes, the second one's when it has ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PYTEST = (sys.executable, "-m", "pytest", "-q", "--durations=15")


def main(arguments: Sequence[str]) -> int:
    at = list(arguments).index("--")
    first, second = arguments[:at], arguments[at + 1 :]
    with tempfile.TemporaryFile() as output:
        beside = subprocess.Popen([*PYTEST, *second], stdout=output, stderr=subprocess.STDOUT)
        try:
            code = subprocess.run([*PYTEST, *first], check=False).returncode
            code = beside.wait() or code
        finally:
            beside.terminate()
            beside.wait()
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return code


if __name__ == "__main__":
    missing = [folder for folder in sys.argv[1:] if folder != "--" and not Path(folder).exists()]
    if missing:
        sys.exit(f"no such tests: {', '.join(missing)}")
    sys.exit(main(sys.argv[1:]))

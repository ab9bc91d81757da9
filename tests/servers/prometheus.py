"""Prometheus and promtool, from Debian's package, which is unpacked into `.cache`. That needs no root.

`python -m tests.servers.prometheus` says when they cannot be had. Then only tests of the alerts are left out, loudly.
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.embedded.children import Child
from tests import ROOT
from tests.plain_http import http_client
from tests.servers.ports import free_port
from tests.speed import limit

HINT = "the alerts are not tested: sudo apt-get install -y prometheus"
HOME = ROOT / ".cache" / "prometheus"


def find_or_unpack() -> Path | None:
    """Returns the folder that has `prometheus` and `promtool`. None if there is none."""
    installed = shutil.which("promtool"), shutil.which("prometheus")
    if installed[0] and installed[1]:
        return Path(installed[0]).parent
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = HOME / "usr" / "bin"
        if not (found / "promtool").exists() and shutil.which("apt-get") and shutil.which("dpkg"):
            print("Unpacking Prometheus for the tests", file=sys.stderr)
            _run("apt-get", "download", "prometheus")
            for package in HOME.glob("prometheus_*.deb"):
                _run("dpkg", "-x", str(package), ".")
                package.unlink()
        return found if (found / "promtool").exists() else None


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=HOME, check=False, capture_output=True, text=True, timeout=limit(300))
    if done.returncode:
        print(done.stderr[-1_000:], file=sys.stderr)


def required() -> Path:
    """Returns the folder of the programs. Skips the test if there is none."""
    found = find_or_unpack()
    if found is None:
        pytest.skip(HINT)
    return found


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def firing(self) -> set[str]:
        """Returns the names of the alerts that fire."""
        found = await self._get("/api/v1/alerts")
        return {alert["labels"]["alertname"] for alert in found["alerts"] if alert["state"] == "firing"}

    async def until_firing(self, *names: str, within: float) -> None:
        """Waits until all of these alerts fire. Raises TimeoutError, which says what does, after `within` seconds."""
        fires: set[str] = set()
        try:
            async with asyncio.timeout(within):
                while not set(names) <= (fires := await self.firing()):
                    await asyncio.sleep(0.1)  # between two looks of a bounded wait
        except TimeoutError:
            raise TimeoutError(f"{set(names) - fires} do not fire; {fires} do") from None

    async def _get(self, path: str, **parameters: str) -> Any:
        async with http_client(base_url=self.url, timeout=limit(10)) as http:
            answer = await http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@asynccontextmanager
async def prometheus(folder: Path) -> AsyncIterator[Prometheus]:
    """Runs Prometheus with the `prometheus.yml` in `folder`. Skips the test if there is no Prometheus."""
    programs = required()
    port = free_port()
    server = Prometheus(f"http://127.0.0.1:{port}")

    async def ready() -> bool:
        try:
            async with http_client(timeout=limit(5)) as http:
                return (await http.get(f"{server.url}/-/ready")).status_code == 200
        except httpx.TransportError:
            return False

    command: list[str | Path] = [
        programs / "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn", "--web.console.templates=none",
        "--web.console.libraries=none",
    ]  # fmt: skip
    child = Child("Prometheus", command, ready=ready, ready_within=limit(30), log=folder / "prometheus.log")
    try:
        await child.start()
        yield server
    finally:
        await child.stop()


if __name__ == "__main__" and find_or_unpack() is None:
    print(HINT, file=sys.stderr)

"""Child processes that live no longer than we do, not even when we are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from backend.errors import ChildFailedError, ConfigError

_LEASH = Path(__file__).with_name("leash.py")
_LOOK_EVERY = 0.01
_TAIL_BYTES = 2_000


async def _ready_at_once() -> bool:
    return True


def leashed(command: Sequence[str | Path], *, death_signal: signal.Signals, identity: str = "same") -> list[str]:
    """The command line that runs `command` until this process ends, as leash.py says."""
    head = [sys.executable, "-I", "-S", _LEASH, os.getpid(), int(death_signal), identity]
    return [str(part) for part in (*head, *command)]


@dataclass
class Child:
    """One program, started as often as needed. Start it from a thread that outlives it: it dies with that thread.

    It runs in a session of its own, so a Ctrl-C in the terminal reaches us and not it. `ready` is asked until it says
    yes.
    """

    name: str
    command: Sequence[str | Path]
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    identity: str = "same"
    ready: Callable[[], Awaitable[bool]] = _ready_at_once
    ready_within: float = 60.0
    environment: Mapping[str, str] | None = None
    log: Path | None = None
    """Where its output goes; None: to ours."""
    inherits: tuple[int, ...] = ()
    """File descriptors that it holds open for as long as it or a child of its own lives."""
    _process: Process | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Returns when it is ready. Raises ChildFailedError, with nothing left behind."""
        if sys.platform != "linux":
            raise ConfigError("The embedded servers need Linux; set DATABASE_URL and REDIS_URL instead")
        output = self._open_log()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *leashed(self.command, death_signal=self.death_signal, identity=self.identity),
                stdin=DEVNULL,
                stdout=output,
                stderr=None if output is None else STDOUT,
                env=self.environment,
                start_new_session=True,
                pass_fds=self.inherits,
            )
        finally:
            if output is not None:
                output.close()
        try:
            await self._become_ready()
        except BaseException:
            await self.stop(patience=2)
            raise

    async def _become_ready(self) -> None:
        try:
            async with asyncio.timeout(self.ready_within):
                while not await self.ready():
                    if not self.running:
                        raise ChildFailedError(f"{self.name} did not start: {self.last_words()}")
                    await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError:
            raise ChildFailedError(
                f"{self.name} was not ready after {self.ready_within:.0f} s: {self.last_words()}"
            ) from None

    async def wait(self) -> int:
        """The exit code of the running process, when it ends; negative for a signal."""
        return 0 if self._process is None else await self._process.wait()

    async def stop(self, patience: float = 20) -> None:
        """Asks it to stop, then makes it. Returns when it is gone; harmless when it is already."""
        for demand, limit in ((self.stop_signal, patience), (self.death_signal, 5.0), (signal.SIGKILL, 5.0)):
            if not self.running:
                return
            self.send(demand)
            try:
                await asyncio.wait_for(self.wait(), limit)
            except TimeoutError:
                continue

    def send(self, demand: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(demand)

    def last_words(self) -> str:
        """The last line of its log that says something."""
        if self.log is None or not self.log.exists():
            return "it ended" if self._process is None else f"exit code {self._process.returncode}"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
        return (
            next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing") + f" (see {self.log})"
        )

    def _open_log(self) -> IO[bytes] | None:
        return None if self.log is None else self.log.open("ab")

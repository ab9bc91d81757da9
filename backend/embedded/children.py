"""Child processes that end with this process, even if it is killed."""

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

_DEATH_SIGNAL_SCRIPT = Path(__file__).with_name("death_signal.py")
_READY_POLL = 0.01  # seconds between two calls of `ready`
_TAIL_BYTES = 2_000


async def _ready_at_once() -> bool:
    return True


def tied_to_parent(command: Sequence[str | Path], *, death_signal: signal.Signals, identity: str = "same") -> list[str]:
    """Returns the command line that runs `command` through death_signal.py, so that it ends with this process."""
    head = [sys.executable, "-I", "-S", _DEATH_SIGNAL_SCRIPT, os.getpid(), int(death_signal), identity]
    return [str(part) for part in (*head, *command)]


@dataclass
class Child:
    """A program that can be started again. Start it from a thread that outlives it, because it dies with that thread.

    It runs in a separate process session, so that a Ctrl-C in the terminal does not reach it. `start` calls `ready`
    until it returns True.
    """

    name: str
    command: Sequence[str | Path]
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    identity: str = "same"
    ready: Callable[[], Awaitable[bool]] = _ready_at_once
    ready_within: float = 60.0
    """Seconds."""
    environment: Mapping[str, str] | None = None
    log: Path | None = None
    """The file for its output; None for the output of this process."""
    inherits: tuple[int, ...] = ()
    """File descriptors that it and its own children keep open while they live."""
    _process: Process | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Starts it and waits until it is ready. Raises ChildFailedError, after ending it, or ConfigError."""
        if sys.platform != "linux":
            raise ConfigError("The embedded servers need Linux; set DATABASE_URL and REDIS_URL instead")
        output = self._open_log()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *tied_to_parent(self.command, death_signal=self.death_signal, identity=self.identity),
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
                    await asyncio.sleep(_READY_POLL)
        except TimeoutError:
            raise ChildFailedError(
                f"{self.name} was not ready after {self.ready_within:.0f} s: {self.last_words()}"
            ) from None

    async def wait(self) -> int:
        """Waits for the process to end. Returns its exit code, which is negative for a signal."""
        return 0 if self._process is None else await self._process.wait()

    async def stop(self, patience: float = 20) -> None:
        """Sends the stop signal, then stronger ones. `patience` is in seconds. Does nothing if it has already ended."""
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
        """Returns the last line of its log that is not empty, or how it ended if it has no log."""
        if self.log is None or not self.log.exists():
            return "it ended" if self._process is None else f"exit code {self._process.returncode}"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
        return (
            next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
            + f" (see {self.log})"
        )

    def _open_log(self) -> IO[bytes] | None:
        """Opens the log for this user alone, because a server may quote the texts of users in it."""
        if self.log is None:
            return None
        return os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")

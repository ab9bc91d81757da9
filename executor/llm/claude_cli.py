"""Claude Code's program as a child process that exchanges JSON lines: a `Transport` of the Claude Agent SDK.

The SDK has a transport of its own. That one passes on the whole environment of the executor, puts the system prompt on
the command line, and ends the program gently: the program then closes the open tool calls itself and asks the model
once more. This one is started with the given environment alone, dies with the executor, and is ended by SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.embedded.children import tied_to_parent
from executor.llm.failures import ModelCallError
from executor.llm.provider_words import masked

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one line that the program writes."""
LAST_WORDS = 2_000
"""Bytes of standard error that are kept for the log."""
EXIT_WAIT = 2.0
"""Seconds to wait for a program that was killed, or that has closed its output."""


class ClaudeCli:
    """One run of the program. `kill` may be called at any time, and again. `secrets` are kept out of failures."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], folder: Path, secrets: Sequence[str]
    ) -> None:
        self._command = command
        self._environment = environment
        self._folder = folder
        self._secrets = secrets
        self._process: Process | None = None
        self._words = b""
        self._listening: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Starts the program. Raises ModelCallError `provider_error` if the system refuses that."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *tied_to_parent(self._command, death_signal=signal.SIGKILL),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=dict(self._environment),
                cwd=self._folder,
                start_new_session=True,
                limit=MAX_LINE,
            )
        except OSError as error:
            raise ModelCallError("provider_error", note=f"Claude Code cannot be started: {error.strerror}") from None
        self._listening = asyncio.create_task(self._listen(self._process))

    async def _listen(self, process: Process) -> None:
        assert process.stderr is not None
        while piece := await process.stderr.read(65_536):
            self._words = (self._words + piece)[-LAST_WORDS:]

    def is_ready(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def write(self, data: str) -> None:
        """Writes lines. Raises ModelCallError if the program has gone."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data.encode("utf-8", "replace"))
            await self._process.stdin.drain()
        except (OSError, RuntimeError):
            raise await self.failure() from None

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yields the messages of the program until its output ends, whatever the reason."""
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:
                raise ModelCallError("provider_error", note=f"a line of more than {MAX_LINE} bytes") from None
            if not line:
                return
            with contextlib.suppress(ValueError):  # a line that is no message
                message = json.loads(line)
                if isinstance(message, dict):
                    yield message

    async def failure(self) -> ModelCallError:
        """Returns the failure of a program that has ended before its answer did."""
        code = None
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_WAIT):
                    code = await self._process.wait()
        said = masked(self._words.decode("utf-8", "replace"), self._secrets)
        note = f"Claude Code ended with code {code}" if code is not None else "Claude Code closed its output"
        return ModelCallError("provider_incomplete", again=True, note=note, said=said)

    async def end_input(self) -> None:
        """Does nothing: the end of its input would let the program go on by itself."""

    async def close(self) -> None:
        """Kills the program and waits for it."""
        self.kill()
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXIT_WAIT):
                    await self._process.wait()

    def kill(self) -> None:
        """Kills the program and all that it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._listening is not None:
            self._listening.cancel()

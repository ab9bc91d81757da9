"""Connections that belong to one session or one user each, for servers that remember what they were told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from executor.mcp.failures import ServerBusy, ServerUnavailable
from executor.mcp.link import Link
from executor.mcp.oauth.challenge import SignInNeeded

MAX_OWN = 16
"""Connections of one server at once, beside the one that lists its tools. An idle one makes room for the next."""
HELD = 90.0
"""Seconds for which a connection is kept after its server said that a task goes on. The next poll then uses it."""
MAX_IDLE, SWEEP_EVERY = 600.0, 30.0
"""Seconds without a call after which a connection is closed, and seconds between two searches for idle ones."""


@dataclass(slots=True)
class _Own:
    link: Link
    job: asyncio.Task[None]
    asked_at: float = field(default_factory=time.monotonic)
    held_until: float = 0.0

    @property
    def is_idle(self) -> bool:
        return not self.link.is_busy and time.monotonic() >= self.held_until

    @property
    def used_at(self) -> float:
        """The time of the end of the last call, or of the last request for the connection, whichever is later."""
        return max(self.asked_at, self.link.call_ended_at)


class OwnLinks:
    """Opens a connection with the first call of its owner. `new_link` makes one for its owner, in a folder.

    There are at most `most` of them, or MAX_OWN.
    """

    def __init__(self, new_link: Callable[[Path, str], Link], start_timeout: float, most: int | None = None) -> None:
        self._new_link = new_link
        self._start_timeout = start_timeout
        self._most = most
        self._links: dict[str, _Own] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def link_of(self, owner: str) -> Link:
        """Returns the owner's connection when it is up. Raises ServerUnavailable, or ServerBusy if all are in use.

        Raises SignInNeeded if the server does not take the owner's token.
        """
        own = self._links.get(owner)
        if own is None or own.link.down.is_set():
            own = self._begin(owner)
        own.asked_at = time.monotonic()
        await own.link.settled()
        if not own.link.usable:
            if own.link.challenge is not None:
                raise SignInNeeded(own.link.challenge)
            raise ServerUnavailable(own.link.why.words if own.link.why is not None else "", own.link.why)
        return own.link

    def hold(self, owner: str, *, works: bool) -> None:
        """Keeps the owner's connection for HELD seconds, because a task works behind it, or no longer."""
        if (own := self._links.get(owner)) is not None:
            own.held_until = time.monotonic() + HELD if works else 0.0

    async def sweep(self) -> None:
        """Closes idle connections. Never returns."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            for owner, own in list(self._links.items()):
                if own.is_idle and time.monotonic() - own.used_at > MAX_IDLE:
                    self._close(owner)

    async def end(self) -> None:
        """Cancels all connections and waits for their ends."""
        jobs = {*(own.job for own in self._links.values()), *self._ending}
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs)

    def _begin(self, owner: str) -> _Own:
        self._links.pop(owner, None)
        if len(self._links) >= (self._most or MAX_OWN):
            idle = [(own.used_at, other) for other, own in self._links.items() if own.is_idle]
            if not idle:
                raise ServerBusy
            self._close(min(idle)[1])
        folder = TemporaryDirectory(prefix="copilot-mcp-", ignore_cleanup_errors=True)
        link = self._new_link(Path(folder.name), owner)
        job = asyncio.create_task(link.run(self._start_timeout), name=f"MCP server {link.server.name} of one owner")
        self._ending.add(job)
        job.add_done_callback(self._ending.discard)
        job.add_done_callback(lambda _: folder.cleanup())
        own = self._links[owner] = _Own(link, job)
        return own

    def _close(self, owner: str) -> None:
        self._links.pop(owner).link.retire()

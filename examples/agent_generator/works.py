"""Work by idempotency key: the same key gets the same answer, and nothing is done twice."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

MAX_KEPT, MAX_AT_ONCE = 1_000, 100  # answers in memory; work in progress
logger = logging.getLogger(__name__)


class KeyReused(Exception):
    """This idempotency key was used with a different request."""


class TooMuch(Exception):
    """Too many requests are in progress. Please retry later."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The status and the body of a response."""

    status: int
    document: dict[str, Any]


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    job: asyncio.Task[Reply]
    asked: int = 0


@dataclass(slots=True)
class Works:
    """The current work of this process and its recent answers, kept in memory only."""

    entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    done: Counter[str] = field(default_factory=Counter)
    tries: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    _jobs: set[asyncio.Task[Any]] = field(default_factory=set)

    def count_try(self, request: bytes) -> int:
        """Returns how often this request has been received, this time included."""
        number = self.tries.pop(request, 0) + 1
        self.tries[request] = number
        while len(self.tries) > MAX_KEPT:
            self.tries.popitem(last=False)
        return number

    async def reply_to(self, key: str, fingerprint: bytes, begin: Callable[[], Coroutine[Any, Any, Reply]]) -> Reply:
        """Runs `begin`, or waits for an earlier request with that key. Returns the reply. Raises KeyReused, TooMuch.

        If the caller disconnects, the work continues, so that the caller can ask again for the answer.
        """
        entry = self.entries.get(key)
        if entry is None or _failed(entry.job):
            self._make_room()
            entry = self.entries[key] = _Entry(fingerprint, self.start(begin()))
        if entry.fingerprint != fingerprint:
            raise KeyReused
        entry.asked += 1
        return await asyncio.shield(entry.job)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts work that continues after the request that started it."""
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._ended)
        return job

    def overview(self) -> list[dict[str, Any]]:
        return [{"key": key, "asked": one.asked, "done": self.done[key]} for key, one in self.entries.items()]

    async def stop(self) -> None:
        """Cancels the work in progress, which is lost, as if the process were killed."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _ended(self, job: asyncio.Task[Any]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            logger.error("work failed: %r", error)

    def _make_room(self) -> None:
        if len(self._jobs) >= MAX_AT_ONCE:
            raise TooMuch
        for key in [key for key, entry in self.entries.items() if entry.job.done()][: len(self.entries) - MAX_KEPT + 1]:
            del self.entries[key]
            del self.done[key]


def _failed(job: asyncio.Task[Reply]) -> bool:
    return job.done() and (job.cancelled() or job.exception() is not None)

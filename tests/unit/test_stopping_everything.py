"""The order in which `python -m backend up` stops its processes."""

from __future__ import annotations

import asyncio
from typing import cast

from backend.embedded import Child
from backend.up import _stop_all


class Stopped:
    """A process that notes when its stop begins and ends."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    async def stop(self, _patience: float) -> None:
        self.notes.append(f"{self.name} stops")
        await asyncio.sleep(0)
        self.notes.append(f"{self.name} ended")


async def test_what_running_turns_use_stops_after_the_executor() -> None:
    notes: list[str] = []
    processes = [cast(Child, Stopped(name, notes)) for name in ("API", "executor", "generator", "sandbox")]
    await _stop_all(processes, 1)
    assert max(notes.index(f"{name} ended") for name in ("API", "executor")) < min(
        notes.index(f"{name} stops") for name in ("generator", "sandbox")
    )

"""Which processes there are, as /proc says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path


def descendants(root: int) -> set[int]:
    """The children of that process, theirs, and so on."""
    parents = {pid: int(state[1]) for pid in _processes() if (state := _state_of(pid))}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return set(found[1:])


def running(pid: int) -> bool:
    state = _state_of(pid)
    return bool(state) and state[0] != "Z"


async def stopped(pid: int, within: float) -> None:
    """Waits until that process stands still, as SIGSTOP makes it; TimeoutError when it goes on."""
    async with asyncio.timeout(within):
        while _state_of(pid)[:1] != ["T"]:
            await asyncio.sleep(0.02)  # between two looks of a bounded wait


async def all_gone(pids: Iterable[int], within: float) -> None:
    """Waits until none of them runs; TimeoutError when one still does."""
    async with asyncio.timeout(within):
        while [pid for pid in pids if running(pid)]:
            await asyncio.sleep(0.02)  # between two looks of a bounded wait


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _state_of(pid: int) -> list[str]:
    """State, parent and the rest of /proc/PID/stat; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []

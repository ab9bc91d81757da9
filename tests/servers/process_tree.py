"""Reads the states of processes from /proc."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path


def descendants(root: int) -> set[int]:
    """Returns the pids of that process's children, their children, and so on."""
    parents = {pid: int(state[1]) for pid in _processes() if (state := _state_of(pid))}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return set(found[1:])


def running(pid: int) -> bool:
    state = _state_of(pid)
    return bool(state) and state[0] != "Z"


async def stopped(pid: int, within: float) -> None:
    """Waits until that process is stopped, as by SIGSTOP. Raises TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while _state_of(pid)[:1] != ["T"]:
            await asyncio.sleep(0.02)  # between two checks of a bounded wait


async def all_gone(pids: Iterable[int], within: float) -> None:
    """Waits until none of them runs. Raises TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while [pid for pid in pids if running(pid)]:
            await asyncio.sleep(0.02)  # between two checks of a bounded wait


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _state_of(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state and the parent on, or an empty list if the process is
    gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []

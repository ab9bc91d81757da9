"""The slots for concurrent calls of one server, shared fairly among the sessions that want them."""

from __future__ import annotations

from executor.mcp.failures import ServerBusy
from executor.slots import MAX_WAIT, NoSlot, Slots

MAX_CALLS = 16
"""Concurrent calls of one session to a server."""
RESERVED = 4
"""Further slots, for sessions that have no call under way."""


class CallSlots(Slots):
    """Slots of which each call takes one. Without one, `slot` raises ServerBusy."""

    def __init__(self, most: int = MAX_CALLS + RESERVED) -> None:
        super().__init__(most, wait=MAX_WAIT)

    async def _wait(self, owner: str, size: int) -> None:
        try:
            await super()._wait(owner, size)
        except NoSlot:
            raise ServerBusy from None

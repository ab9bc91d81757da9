"""A storm: a load and a nemesis at the same time, and what the system holds afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from tests.faults.rig.snapshot import Snapshot, quiet, take_snapshot
from tests.faults.rig.supervisor import Rig
from tests.faults.scale import scale
from tests.speed import limit

DRAINED_WITHIN = limit(scale(90, 900))


async def storm(rig: Rig, striking: Awaitable[None], load: Awaitable[object], *, to_the_end: bool = False) -> Snapshot:
    """Runs the load while the nemesis strikes, then repairs everything and waits for the end of the work. With
    `to_the_end` the strikes continue until the load is done."""
    strikes, work = asyncio.ensure_future(striking), asyncio.ensure_future(load)
    try:
        done, _ = await asyncio.wait({strikes, work}, return_when=asyncio.FIRST_COMPLETED)
        for job in done:  # raises if it failed
            job.result()
        await (work if to_the_end else strikes)
        strikes.cancel()
        await asyncio.wait({strikes})
        await rig.heal()
        async with asyncio.timeout(DRAINED_WITHIN):
            await work
            await quiet(rig)
            return await take_snapshot(rig)
    finally:
        for job in (strikes, work):
            job.cancel()
        await asyncio.gather(strikes, work, return_exceptions=True)

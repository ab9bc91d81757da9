"""`python -m backend doctor`: looks at everything that an operator can set or see, and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from backend.config import Settings
from backend.operating.findings import CheckState, Finding, error
from backend.operating.postgres_checks import check_postgres
from backend.operating.rabbitmq_checks import check_rabbitmq
from backend.operating.redis_checks import check_redis
from backend.operating.settings_checks import check_settings

LIMIT = 60.0
"""Seconds for the checks of one store."""


_NOTHING_RUNS = error(
    "stack",
    "no server is set, and `make run` does not run with this DATA_DIR",
    "start `make run`, or set DATABASE_URL and REDIS_URL: docs/deployment.md",
)


async def examine(settings: Settings, *, named: bool = True, beside_up: bool = False) -> list[Finding]:
    """Makes every check. Raises nothing because of a store: that is a finding.

    If no store is `named` in the settings and neither Postgres nor Redis answers, there is one finding for both.
    `beside_up`: the stores are those of an `up` that runs.
    """
    stores = {
        "postgres": check_postgres(settings),
        "redis": check_redis(settings),
        "rabbitmq": check_rabbitmq(settings),
    }
    found = await asyncio.gather(*(_all(name, checks) for name, checks in stores.items()))
    nothing_runs = not named and all(part and part[0].state is CheckState.ERROR for part in found[:2])
    of_stores = [_NOTHING_RUNS] if nothing_runs else [finding for part in found for finding in part]
    return [*check_settings(settings, beside_up=beside_up), *of_stores]


async def _all(name: str, checks: AsyncIterator[Finding]) -> list[Finding]:
    found: list[Finding] = []
    try:
        async with asyncio.timeout(LIMIT):
            async for finding in checks:
                found.append(finding)
    except TimeoutError:
        found.append(error(name, f"the checks took over {LIMIT:.0f} s", "see docs/runbook.md"))
    return found

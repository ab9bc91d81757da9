"""Is the process there, and can it work? Nothing here writes anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Response

from backend.api.deps import AtDesk
from backend.api.desk import OpenRoute
from backend.api.problems import responses
from backend.api.schemas import Health, Ok, Readiness
from backend.errors import Unavailable
from backend.resources import Resources

SERVICE = "copilot-chat"
_CHECK_TIMEOUT = 2.0
router = APIRouter(tags=["health"], route_class=OpenRoute, responses=responses(413, 422))
logger = logging.getLogger(__name__)


def service_version() -> str:
    try:
        return version(SERVICE)
    except PackageNotFoundError:
        return "0"


_VERSION = service_version()


@router.get("/health")
async def health() -> Health:
    """What this is."""
    return Health(status="ok", service=SERVICE, version=_VERSION)


@router.get("/health/live")
async def live() -> Ok:
    """The process answers."""
    return Ok(status="ok")


@router.get("/health/ready", responses=responses(503))
async def ready(desk: AtDesk, response: Response) -> Readiness:
    """Everything that requests need is there."""
    response.headers["cache-control"] = "no-store"
    checks = await _checks(desk.house)
    if not all(checks.values()):
        raise Unavailable("Not ready: " + ", ".join(name for name, well in checks.items() if not well), checks=checks)
    return Readiness(status="ready", checks=checks)


async def _checks(house: Resources) -> dict[str, bool]:
    postgres, redis = await asyncio.gather(_works(house.database.ping()), _works(house.redis.ping()))
    return {"postgres": postgres, "redis": redis, "hub": house.hub.healthy, "turns": house.turns.healthy}


async def _works(check: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT):
            await check
    except Exception as error:  # noqa: BLE001  # whatever is wrong with it, it does not work
        logger.warning("not ready", extra={"why": repr(error)})
        return False
    return True

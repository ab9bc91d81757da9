"""Is the process there, and can it work? Nothing here writes anything."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Response

from backend.api.deps import AtDesk
from backend.api.desk import OpenRoute
from backend.api.problems import responses
from backend.api.schemas import Health, Ok, Readiness
from backend.errors import Unavailable

SERVICE = "copilot-chat"
router = APIRouter(tags=["health"], route_class=OpenRoute, responses=responses(413, 422))


def service_version() -> str:
    try:
        return version(SERVICE)
    except PackageNotFoundError:
        return "0"


VERSION = service_version()


@router.get("/health")
async def health() -> Health:
    """What this is."""
    return Health(status="ok", service=SERVICE, version=VERSION)


@router.get("/health/live")
async def live() -> Ok:
    """The process answers."""
    return Ok(status="ok")


@router.get("/health/ready", responses=responses(503))
async def ready(desk: AtDesk, response: Response) -> Readiness:
    """Everything that requests need is there."""
    response.headers["cache-control"] = "no-store"
    checks = await desk.house.state() | {"completions": desk.completions.healthy}
    if not all(checks.values()):
        raise Unavailable("Not ready: " + ", ".join(name for name, well in checks.items() if not well), checks=checks)
    return Readiness(status="ready", checks=checks)

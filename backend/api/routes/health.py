"""Health checks of the process and of its services. Only readiness writes: one key with a TTL, to Redis."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Response

from backend.api.deps import AppState
from backend.api.problems import responses
from backend.api.routes_base import OpenRoute
from backend.api.schemas import Health, Ok, Readiness
from backend.errors import Unavailable

SERVICE = "copilot-chat"
router = APIRouter(tags=["health"], route_class=OpenRoute, responses=responses(413, 422))


def service_version() -> str:
    """Returns the version of the installed package, or "0" if it is not installed."""
    try:
        return version(SERVICE)
    except PackageNotFoundError:
        return "0"


VERSION = service_version()


@router.get("/health")
async def health() -> Health:
    """Returns the name and version of the service. Checks nothing else."""
    return Health(status="ok", service=SERVICE, version=VERSION)


@router.get("/health/live")
async def live() -> Ok:
    """Answers 200 if the process is running."""
    return Ok(status="ok")


@router.get("/health/ready", responses=responses(503))
async def ready(api: AppState, response: Response) -> Readiness:
    """Answers 200 if every service that requests need is available, and 503 otherwise.

    `checks` tells the state of each service.
    """
    response.headers["cache-control"] = "no-store"
    state = await api.state()
    checks, reasons = state.checks, state.reasons
    if not all(checks.values()):
        failed = (f"{name} ({reasons[name]})" if name in reasons else name for name, ok in checks.items() if not ok)
        raise Unavailable("Not ready: " + ", ".join(failed), checks=checks, reasons=reasons)
    return Readiness(status="ready", checks=checks)

"""Requests of the API to the agent platform: how long they may take, and which errors its failures become."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fastapi import Response

from backend.api.schema_base import Reply
from backend.api.state import ApiState
from backend.errors import (
    AgentNotRunnable,
    AppError,
    InvalidInputs,
    NotFound,
    PayloadTooLarge,
    PlatformConflict,
    PlatformNotConfigured,
    PlatformRefused,
    PlatformUnavailable,
    RateLimited,
    Unavailable,
)
from backend.platform.failures import Failure, PlatformFailure

if TYPE_CHECKING:
    from backend.platform.client import Platform

PLATFORM_SECONDS = 6.0
"""Seconds that a request of the API waits for the platform, all calls included. It must answer within 7 s."""


class KeptAtPlatform(Reply):
    kept_at_platform: bool = True
    message: str = "Deleted here. The agent platform could not delete all that it has: ask its operator."


MAY_BE_KEPT: dict[int | str, dict[str, Any]] = {
    200: {"model": KeptAtPlatform, "description": "Deleted here; the agent platform could not delete all of it."}
}


@asynccontextmanager
async def asking_platform(
    api: ApiState, missing: type[NotFound], *, wrong: type[AppError] = InvalidInputs
) -> AsyncIterator[Platform]:
    """Yields the platform's client for PLATFORM_SECONDS. The failures of its calls become errors of the API.

    `missing` is the error for what the platform does not know, and `wrong` the one for values that it refuses. Raises
    PlatformNotConfigured, and PlatformUnavailable if it cannot be reached or does not answer in time.
    """
    if api.platform is None:
        raise PlatformNotConfigured
    try:
        async with asyncio.timeout(PLATFORM_SECONDS):
            yield api.platform
    except TimeoutError:
        raise PlatformUnavailable from None
    except PlatformFailure as failure:
        raise _error_of(failure, missing, wrong) from None


def deleted(*, also_there: bool) -> Response:
    """Returns the answer to a deletion: 204, or 200 with a KeptAtPlatform if the platform may keep some of it."""
    if also_there:
        return Response(status_code=204)
    return Response(KeptAtPlatform().model_dump_json(), media_type="application/json")


def platform_key(given: str | None) -> str:
    """Returns the key of a request to the platform. It never equals an operation's id, which is a key as well."""
    return f"api-{uuid4() if given is None else sha256(given.encode()).hexdigest()}"


def _error_of(failure: PlatformFailure, missing: type[NotFound], wrong: type[AppError]) -> AppError:
    said = failure.details if isinstance(failure.details, dict) else {}
    words = said.get("error")
    detail = words if isinstance(words, str) else None
    more: dict[str, Any] = {} if failure.details is None else {"details": failure.details}
    match failure.failure:
        case Failure.NOT_FOUND:
            return missing()
        case Failure.INVALID_GRAPH:
            return AgentNotRunnable(**more)
        case Failure.INVALID_INPUT:
            return InvalidInputs(fields=_fields(said.get("details")), **more)
        case Failure.INVALID_REQUEST:
            return wrong(detail, **more)
        case Failure.CONFLICT:
            return PlatformConflict(detail, **more)
        case Failure.NO_CREDIT | Failure.DISABLED | Failure.UNSUPPORTED:
            return PlatformRefused(failure.message)
        case Failure.TOO_LARGE:
            return PayloadTooLarge(failure.message)
        case Failure.TOO_MANY:
            return RateLimited(detail or failure.message, retry_after=max(1, round(failure.retry_after or 0)))
        case Failure.UNAVAILABLE | Failure.TIMEOUT:
            return PlatformUnavailable()
        case _:
            return Unavailable(failure.message)


def _fields(details: Any) -> list[dict[str, str]]:
    found = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return [
        {"path": f"body.inputs.{one['field']}", "message": str(one.get("message", "is wrong"))}
        for one in found
        if isinstance(one.get("field"), str)
    ]

"""An HTTP request to the agent platform. It is repeated where that is safe, within one time limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from backend.chat.models import Json
from backend.json_client import strict_json
from backend.json_client.calls import CallLimits, call_repeatedly, read_body
from backend.json_client.failures import BodyCompressed, BodyTooLarge
from backend.json_client.redacting import safe_details
from backend.json_client.retry_after import retry_after_of
from backend.platform.failures import Failure, PlatformFailure

MAX_ANSWER_BYTES = 8_000_000
_OF_STATUS = {
    400: Failure.INVALID_REQUEST,
    401: Failure.UNAVAILABLE,
    402: Failure.NO_CREDIT,
    403: Failure.DISABLED,
    404: Failure.NOT_FOUND,
    405: Failure.UNSUPPORTED,
    408: Failure.TIMEOUT,
    409: Failure.CONFLICT,
    413: Failure.TOO_LARGE,
    422: Failure.INVALID_INPUT,
    429: Failure.TOO_MANY,
    501: Failure.UNSUPPORTED,
    502: Failure.UNAVAILABLE,
    503: Failure.UNAVAILABLE,
    504: Failure.TIMEOUT,
}
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_LOST = (httpx2.NetworkError, httpx2.RemoteProtocolError, anyio.EndOfStream, OSError)


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `repeatable`: the platform does it once, however often it is sent."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes | None = None
    repeatable: bool = True


async def send(client: httpx2.AsyncClient, request: Request, limits: CallLimits) -> Json:
    """Sends the request and returns the JSON of the answer; None for 204. Raises PlatformFailure."""
    sent = False

    def wait_after(failure: PlatformFailure, number: int) -> float | None:
        nonlocal sent
        sent = failure.sent = failure.sent or sent
        if failure.failure not in (Failure.UNAVAILABLE, Failure.TOO_MANY) or failure.note == "status 401":
            return None
        if (failure.sent and not request.repeatable) or (failure.retry_after or 0.0) > limits.longest_wait:
            return None
        return max(limits.backoff_after(number), failure.retry_after or 0.0)

    try:
        return await call_repeatedly(
            "the agent platform", limits, lambda: _try(client, request), PlatformFailure, wait_after
        )
    except TimeoutError:
        raise PlatformFailure(Failure.TIMEOUT, note="no answer in time", sent=True) from None


async def _try(client: httpx2.AsyncClient, request: Request) -> Json:
    try:
        async with client.stream(
            request.method, request.path, content=request.content, headers=request.headers
        ) as response:
            if response.status_code == 204:
                return None
            body = await _body_of(response)
            if response.status_code in (200, 201, 202):
                return _read(body)
            raise _refused(response.status_code, body, retry_after_of(response.headers))
    except _NOT_SENT as error:
        raise PlatformFailure(Failure.UNAVAILABLE, note=type(error).__name__) from None
    except _LOST as error:
        raise PlatformFailure(Failure.UNAVAILABLE, note=type(error).__name__, sent=True) from None
    except httpx2.TimeoutException as error:
        raise PlatformFailure(Failure.TIMEOUT, note=type(error).__name__, sent=True) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise PlatformFailure(Failure.INVALID_REQUEST, note=type(error).__name__) from None


async def _body_of(response: httpx2.Response) -> bytes:
    """Returns the body. Raises PlatformFailure if it is compressed or larger than MAX_ANSWER_BYTES."""
    try:
        return await read_body(response, MAX_ANSWER_BYTES)
    except BodyCompressed as error:
        raise PlatformFailure(Failure.INVALID_RESPONSE, note=str(error), sent=True) from None
    except BodyTooLarge as error:
        raise PlatformFailure(Failure.OUTPUT_TOO_LARGE, note=str(error), sent=True) from None


def _read(body: bytes) -> Json:
    try:
        return strict_json.load(body)
    except ValueError:
        raise PlatformFailure(Failure.INVALID_RESPONSE, note="not JSON", sent=True) from None


def _refused(status: int, body: bytes, retry_after: float | None) -> PlatformFailure:
    """Returns the failure of an error answer. From 500 on, except 501 and 503, it may have been done nevertheless."""
    failure = _OF_STATUS.get(status, Failure.PLATFORM_ERROR)
    said = _said(body)
    if status == 422 and said.get("code") in (Failure.INVALID_GRAPH, Failure.BLOCK_FAILED):
        failure = Failure(said["code"])
    given = {name: said[name] for name in ("error", "details") if said.get(name) not in (None, "", [], {})}
    return PlatformFailure(
        failure,
        details=safe_details(given) if given and status != 401 else None,
        note=f"status {status}",
        sent=status >= 500 and status not in (501, 503),
        retry_after=retry_after,
    )


def _said(body: bytes) -> dict[str, Any]:
    try:
        document = strict_json.load(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}

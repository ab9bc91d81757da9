"""An HTTP call to the generator. It is retried if that can help, within one time limit."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
import httpx2

from backend.json_client.calls import CallLimits, call_repeatedly, read_body
from backend.json_client.failures import BodyCompressed, BodyTooLarge
from backend.json_client.retry_after import retry_after_of
from executor.generator.failures import ErrorType, GeneratorFailure

MAX_ANSWER_BYTES = 2_000_000
_RETRIED = frozenset({ErrorType.CONNECTION_ERROR, ErrorType.RATE_LIMIT, ErrorType.SERVICE_UNAVAILABLE})
_OF_STATUS = {
    408: ErrorType.TIMEOUT,
    429: ErrorType.RATE_LIMIT,
    503: ErrorType.SERVICE_UNAVAILABLE,
    504: ErrorType.TIMEOUT,
}
_CONNECTION_LOST = (
    httpx2.NetworkError, httpx2.ConnectTimeout, httpx2.RemoteProtocolError, anyio.EndOfStream, OSError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: 200 with its body, or 202, whose body is not read."""

    status: int
    body: bytes


async def post(
    client: httpx2.AsyncClient, path: str, content: bytes, headers: dict[str, str], limits: CallLimits
) -> Answer:
    """Posts JSON and returns the answer. Raises GeneratorFailure. Cancelling it closes the connection."""

    def wait_after(failure: GeneratorFailure, number: int) -> float | None:
        """Returns at least the seconds that the generator asks for, of which `longest_wait` count."""
        if failure.error_type not in _RETRIED:
            return None
        return max(limits.backoff_after(number), min(failure.retry_after or 0.0, limits.longest_wait))

    try:
        return await call_repeatedly(
            "the generator", limits, lambda: _try(client, path, content, headers), GeneratorFailure, wait_after
        )
    except TimeoutError:
        raise GeneratorFailure(ErrorType.TIMEOUT, note="no answer in time") from None


async def _try(client: httpx2.AsyncClient, path: str, content: bytes, headers: dict[str, str]) -> Answer:
    try:
        async with client.stream("POST", path, content=content, headers=headers) as response:
            status = response.status_code
            if status == 202:
                return Answer(status, b"")
            if status == 200:
                return Answer(status, await answer_body(response))
            kind = _OF_STATUS.get(status, ErrorType.HTTP_ERROR)
            raise GeneratorFailure(
                kind, details={"status": status}, note=f"status {status}", retry_after=retry_after_of(response.headers)
            )
    except _CONNECTION_LOST as error:
        raise GeneratorFailure(ErrorType.CONNECTION_ERROR, note=type(error).__name__) from None
    except httpx2.TimeoutException as error:
        raise GeneratorFailure(ErrorType.TIMEOUT, note=type(error).__name__) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise GeneratorFailure(ErrorType.REQUEST_ERROR, note=type(error).__name__) from None


async def answer_body(response: httpx2.Response) -> bytes:
    """Returns the body. Raises GeneratorFailure if it is compressed or larger than MAX_ANSWER_BYTES."""
    try:
        return await read_body(response, MAX_ANSWER_BYTES)
    except (BodyCompressed, BodyTooLarge) as error:
        raise GeneratorFailure(ErrorType.INVALID_RESPONSE, note=str(error)) from None

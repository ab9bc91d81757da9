"""An HTTP call to the generator. It is retried if that can help, within one time limit."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import anyio
import httpx2

from backend.jitter import jitter
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
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of a call. Times are in seconds. `total` covers all tries and the waits between them."""

    total: float
    tries: int = 4
    connect: float = 10
    backoff: float = 0.5
    longest_backoff: float = 8
    longest_wait: float = 60
    """The longest wait for a Retry-After. A longer one is cut to this."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: 200 with its body, or 202, whose body is not read."""

    status: int
    body: bytes


async def post(
    client: httpx2.AsyncClient, path: str, content: bytes, headers: dict[str, str], patience: Patience
) -> Answer:
    """Posts JSON and returns the answer. Raises GeneratorFailure. Cancelling it closes the connection."""
    try:
        async with asyncio.timeout(patience.total) as limit:
            for number in range(1, patience.tries + 1):
                try:
                    return await _try(client, path, content, headers)
                except GeneratorFailure as failure:
                    wait = _wait_after(number, failure, patience)
                    late = asyncio.get_running_loop().time() + wait >= (limit.when() or 0.0)
                    if failure.error_type not in _RETRIED or number == patience.tries or late:
                        raise
                    logger.info("retrying the call to the generator in %.1f s: %s", wait, failure.note)
                await asyncio.sleep(wait)
    except TimeoutError:
        raise GeneratorFailure(ErrorType.TIMEOUT, note="no answer in time") from None
    raise AssertionError("the last try returns or raises")


def _wait_after(number: int, failure: GeneratorFailure, patience: Patience) -> float:
    """Returns seconds: exponential, less a random part of up to half, but at least what the generator asks for.

    What it asks for counts up to `longest_wait`.
    """
    backoff = min(patience.backoff * 2.0 ** (number - 1), patience.longest_backoff)
    asked = min(failure.retry_after or 0.0, patience.longest_wait)
    return max(jitter(backoff), asked)


async def _try(client: httpx2.AsyncClient, path: str, content: bytes, headers: dict[str, str]) -> Answer:
    try:
        async with client.stream("POST", path, content=content, headers=headers) as response:
            status = response.status_code
            if status == 202:
                return Answer(status, b"")
            if status == 200:
                return Answer(status, await read_body(response))
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


async def read_body(response: httpx2.Response) -> bytes:
    """Returns the body. Raises GeneratorFailure if it is compressed or larger than MAX_ANSWER_BYTES.

    No compression was asked for, and a few compressed bytes could become gigabytes.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise GeneratorFailure(ErrorType.INVALID_RESPONSE, note="compressed")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise GeneratorFailure(ErrorType.INVALID_RESPONSE, note="too large")
    return bytes(body)

"""One call of the generator over HTTP, tried again where that can help, and never longer than its limit."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass

import anyio
import httpx2

from executor.generator.failures import ErrorType, GeneratorFailure
from executor.llm.failures import retry_after_of

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
    """How long to wait for what, in seconds. `total` covers all tries of a call and the waits between them."""

    total: float
    tries: int = 4
    connect: float = 10
    backoff: float = 0.5
    longest_backoff: float = 8
    longest_wait: float = 60
    """The most that a Retry-After is honoured with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to: 200 with its body, or 202, whose body says nothing that is needed."""

    status: int
    body: bytes


async def post(
    client: httpx2.AsyncClient, path: str, content: bytes, headers: dict[str, str], patience: Patience
) -> Answer:
    """The answer to a POST of JSON. Raises GeneratorFailure. Safe to cancel: nothing is left open."""
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
                    logger.info("the generator is asked again in %.1f s: %s", wait, failure.note)
                await asyncio.sleep(wait)
    except TimeoutError:
        raise GeneratorFailure(ErrorType.TIMEOUT, note="no answer in time") from None
    raise AssertionError("the last try returns or raises")


def _wait_after(number: int, failure: GeneratorFailure, patience: Patience) -> float:
    """Exponential, with up to half taken off at random; not less than the generator asks for, up to a limit."""
    backoff = min(patience.backoff * 2.0 ** (number - 1), patience.longest_backoff)
    asked = min(failure.retry_after or 0.0, patience.longest_wait)
    return max(backoff * random.uniform(0.5, 1.0), asked)  # noqa: S311 - jitter


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
    """The body as it was sent. A packed one was not asked for: a few bytes of it could become gigabytes."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise GeneratorFailure(ErrorType.INVALID_RESPONSE, note="packed")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise GeneratorFailure(ErrorType.INVALID_RESPONSE, note="too large")
    return bytes(body)

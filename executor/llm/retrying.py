"""One model call over HTTP, with the one layer of retries that there is: the SDKs' own are switched off.

Theirs end when the answer's headers are there. Ours go on to the first event, and not one step further: what the user
may have seen is never asked for again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Protocol

import anyio
import httpx2

from executor.llm.events import ModelEvent
from executor.llm.failures import ModelCallError, of_response
from executor.llm.sse import SseParser

logger = logging.getLogger(__name__)

_TRANSPORT_ERRORS = (httpx2.HTTPError, httpx2.StreamError, ssl.SSLError, anyio.EndOfStream, OSError)
_DRAIN = 0.2


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    connect: float = 10
    silence: float = 120
    """No byte for so long, before the first or between two."""
    no_event: float = 600
    """Bytes (pings, comments), but no event for so long."""
    attempts: int = 4
    last_start: float = 180
    """No attempt begins later than this after the first."""
    backoff: float = 0.5
    longest_wait: float = 30
    """A provider that asks for more than this is not asked again."""

    def for_http(self) -> httpx2.Timeout:
        return httpx2.Timeout(connect=self.connect, read=self.silence, write=30, pool=30)


class Decoder(Protocol):
    """Makes events out of the payloads of one answer. `feed` and `end` raise ModelCallError."""

    @property
    def reason_known(self) -> bool:
        """The model has said why it stopped: what is still missing can be done without."""
        ...

    @property
    def done(self) -> bool:
        """The provider has said that nothing more comes."""
        ...

    def feed(self, payload: bytes) -> Sequence[ModelEvent]: ...

    def end(self) -> Sequence[ModelEvent]:
        """The last events; a ModelCallError `provider_incomplete` when no reason is known."""
        ...


class SdkErrors(Protocol):
    """The error types that both SDKs have; the SDK module itself has this shape."""

    @property
    def APIStatusError(self) -> type[Exception]: ...  # noqa: N802
    @property
    def APITimeoutError(self) -> type[Exception]: ...  # noqa: N802
    @property
    def APIError(self) -> type[Exception]: ...  # noqa: N802


Connect = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]


async def stream_events(
    connect: Connect, decoder: Callable[[], Decoder], sdk: SdkErrors, patience: Patience
) -> AsyncGenerator[ModelEvent, None]:
    """The events of one model call, tried again until the first of them. Raises ModelCallError."""
    began = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        shown = False
        try:
            async with aclosing(_one_attempt(connect, decoder(), sdk, patience)) as batches:
                async for batch in batches:
                    for event in batch:
                        shown = True
                        yield event
            return
        except ModelCallError as failure:
            wait = _wait_before(attempt + 1, failure, patience)
            late = time.monotonic() + wait - began > patience.last_start
            if shown or not failure.again or attempt >= patience.attempts or late or wait > patience.longest_wait:
                logger.warning("the model call failed: %s (attempt %d, %s)", failure.code, attempt, failure.note)
                raise
            logger.info("the model is asked again in %.1f s: %s (%s)", wait, failure.code, failure.note)
        await asyncio.sleep(wait)


def _wait_before(attempt: int, failure: ModelCallError, patience: Patience) -> float:
    """Exponential, with up to a quarter taken off at random; never less than the provider asks for."""
    backoff: float = min(patience.backoff * 2 ** (attempt - 2), 8.0)
    return max(backoff * random.uniform(0.75, 1.0), failure.retry_after or 0.0)  # noqa: S311 - jitter


async def _one_attempt(
    connect: Connect, decoder: Decoder, sdk: SdkErrors, patience: Patience
) -> AsyncGenerator[Sequence[ModelEvent], None]:
    parser = SseParser()
    last_event = time.monotonic()
    ended = False
    try:
        async with connect() as chunks:
            async for chunk in chunks:
                events, failure = _decode(decoder, parser.feed, chunk)
                if events:
                    last_event = time.monotonic()
                    yield events
                elif time.monotonic() - last_event > patience.no_event:
                    raise ModelCallError("timeout", again=True, note="only pings")
                if failure is not None:
                    raise failure
                if decoder.done:
                    ended = True
                    yield decoder.end()
                    await _drain(chunks)
                    return
            events, failure = _decode(decoder, lambda _: parser.end(), b"")
            if events:
                yield events
            if failure is not None:
                raise failure
    except (sdk.APIError, *_TRANSPORT_ERRORS) as error:
        if not decoder.reason_known:
            raise _explain(error, sdk) from None
    if not ended:
        yield decoder.end()


def _decode(
    decoder: Decoder, read: Callable[[bytes], list[bytes]], chunk: bytes
) -> tuple[list[ModelEvent], ModelCallError | None]:
    """The boundary to what a provider may send: anything. What came before a failure is kept."""
    events: list[ModelEvent] = []
    try:
        for payload in read(chunk):
            events += decoder.feed(payload)
    except ModelCallError as failure:
        return events, failure
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as odd:
        return events, ModelCallError("provider_error", again=True, note=f"unreadable: {type(odd).__name__}")
    return events, None


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Reads the end of the body, which comes with the last event as a rule: only then is the connection used again."""
    try:
        async with asyncio.timeout(_DRAIN):
            async for _ in chunks:
                pass
    except (TimeoutError, *_TRANSPORT_ERRORS):
        pass


def _explain(error: Exception, sdk: SdkErrors) -> ModelCallError:
    refusal = _refusal(error)
    note = _with_address(type(error).__name__ if refusal is None else _in_words(refusal), error)
    if isinstance(error, sdk.APIStatusError):
        response: httpx2.Response = error.response  # type: ignore[attr-defined]
        return of_response(response.status_code, error.body, response.headers)  # type: ignore[attr-defined]
    if isinstance(error, (sdk.APITimeoutError, httpx2.TimeoutException, TimeoutError)) and refusal is None:
        return ModelCallError("timeout", again=True, note=note)
    return ModelCallError("connection", again=True, note=note)


def _refusal(error: BaseException | None) -> OSError | None:
    """Why a connection could not be made: the aiohttp transport calls that a time-out."""
    while error is not None:
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _in_words(refusal: OSError) -> str:
    known = refusal.errno is not None and refusal.errno > 0
    return os.strerror(refusal.errno or 0) if known else refusal.strerror or type(refusal).__name__


def _with_address(what: str, error: Exception) -> str:
    """With the server's address, for the log; without what else a URL may hold."""
    try:
        url = error.request.url  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # an error of neither the SDK nor httpx; one that no request belongs to
        return what
    return f"{what}, at {url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")

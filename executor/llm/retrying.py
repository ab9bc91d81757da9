"""A model call over HTTP with retries. The retries of the SDKs are switched off.

The SDKs retry until the headers of the answer arrive. This module retries until the first event that is shown
(`unshown.py`). It never retries later, since the user may have seen the event.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import anyio
import httpx2

from backend.jitter import jitter
from executor.llm.answer_body import AnswerBody, Decoder
from executor.llm.body_reader import PatientReader, Read
from executor.llm.events import ModelEvent
from executor.llm.failures import ModelCallError, of_response
from executor.llm.model import ON_RETRY
from executor.llm.provider_words import masked_again, secrets_in
from executor.llm.unshown import HeldBackEvents

logger = logging.getLogger(__name__)

_TRANSPORT_ERRORS = (
    httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, ssl.SSLError, anyio.EndOfStream, OSError,
)  # fmt: skip
_DRAIN_S = 0.2
_LONGEST_BACKOFF_S = 8.0
FIRST_BYTE = 120.0  # seconds
SILENT_THOUGHT = 300.0
"""Seconds between two bytes in the Responses API, which begins to answer at once and sends nothing while a model
reasons without a summary. OpenAI's own client waits as long (openai/codex, DEFAULT_STREAM_IDLE_TIMEOUT_MS, read
2026-11-30)."""
OWN_SERVER_FIRST_BYTE = 600.0
"""Seconds for a server of one's own, which may answer one request after the other."""
LARGE_PROVIDERS = frozenset({"api.openai.com", "openrouter.ai", "api.anthropic.com"})
_KEY_HEADER = re.compile(r"auth|key|token|secret", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelCallLimits:
    """Limits of a model call. Times are in seconds."""

    connect: float = 10
    first_byte: float = FIRST_BYTE
    """The longest time before the first byte of an answer. A server with a queue, or one that loads a model, may send
    nothing at all until it begins."""
    silence: float = 120
    """The longest pause between two bytes."""
    no_event: float = 600
    """The longest time without an event while other bytes (pings, comments) arrive."""
    attempts: int = 4
    last_start: float = 180
    """The latest start of an attempt, counted from the start of the first."""
    backoff: float = 0.5
    """The wait before the second attempt. It doubles before each further one, up to 8 s."""
    longest_wait: float = 30
    """The longest wait before an attempt. If the provider asks for more, the call fails."""

    @classmethod
    def of(cls, first_byte: float | None, base_url: str, *, thinks_silently: bool = False) -> ModelCallLimits:
        """Returns the limits for this CHAT_FIRST_BYTE_TIMEOUT. None: OWN_SERVER_FIRST_BYTE, except at large providers.

        `thinks_silently`: the first byte says nothing about when the answer begins, so a silence after it may be as
        long.
        """
        host = urlsplit(base_url).hostname or ""
        usual = FIRST_BYTE if host in LARGE_PROVIDERS else OWN_SERVER_FIRST_BYTE
        limits = cls(first_byte=usual if first_byte is None else first_byte)
        return replace(limits, silence=max(limits.first_byte, SILENT_THOUGHT)) if thinks_silently else limits

    def for_http(self) -> httpx2.Timeout:
        """Returns the limits of the HTTP transport. It has none for reading, which would cost a timer for each piece:
        `_headers` and `PatientReader` limit these waits."""
        return httpx2.Timeout(connect=self.connect, read=None, write=30, pool=30)


class SdkErrors(Protocol):
    """The error types that both SDKs define. The module of an SDK has this shape."""

    @property
    def APIStatusError(self) -> type[Exception]: ...  # noqa: N802
    @property
    def APITimeoutError(self) -> type[Exception]: ...  # noqa: N802
    @property
    def APIError(self) -> type[Exception]: ...  # noqa: N802


Connect = Callable[[], AbstractAsyncContextManager[Read]]
"""Makes a request. Yields a reader of the answer's body."""


async def stream_events(
    connect: Connect,
    decoder: Callable[[], Decoder],
    sdk: SdkErrors,
    limits: ModelCallLimits,
    concede: Callable[[ModelCallError], bool] = lambda _: False,
    secrets: Sequence[str] = (),
) -> AsyncGenerator[ModelEvent, None]:
    """Yields the events of a model call and retries it until the first one that is shown. Raises ModelCallError.

    `concede` returns True if the next request will differ in what a failure is about. It is then made at once.
    `secrets` are hidden in what the provider says, even if a decoder has read it.
    """
    began = time.monotonic()
    attempt = 0
    on_retry = ON_RETRY.get()
    while True:
        attempt += 1
        unshown = HeldBackEvents()
        try:
            async with aclosing(_one_attempt(connect, decoder(), sdk, limits)) as batches:
                async for batch in batches:
                    for event in batch:
                        for passed in unshown.take(event):
                            yield passed
            return
        except ModelCallError as failure:
            failure.said = masked_again(failure.said, secrets)
            shown = unshown.shown
            if shown and failure.code == "connection":
                note = f"after the first words: {failure.note}"
                failure = ModelCallError("provider_incomplete", note=note)
            if not shown and concede(failure):
                continue
            wait = _wait_before(attempt + 1, failure, limits)
            late = time.monotonic() + wait - began > limits.last_start
            said = {"error": failure.said} if failure.said else {}
            if shown or not failure.again or attempt >= limits.attempts or late or wait > limits.longest_wait:
                logger.warning(
                    "model call failed: %s (attempt %d, %s)", failure.code, attempt, failure.note, extra=said
                )
                raise failure from None
            on_retry(failure.code)
            logger.info("retrying the model call in %.1f s: %s (%s)", wait, failure.code, failure.note, extra=said)
        await asyncio.sleep(wait)


def _wait_before(attempt: int, failure: ModelCallError, limits: ModelCallLimits) -> float:
    """Returns the pause in seconds. It doubles each time, is shortened at random by up to a quarter, and is never
    shorter than what the provider asks for.
    """
    backoff: float = min(limits.backoff * 2 ** (attempt - 2), _LONGEST_BACKOFF_S)
    return max(jitter(backoff, 0.75), failure.retry_after or 0.0)


async def _one_attempt(
    connect: Connect, decoder: Decoder, sdk: SdkErrors, limits: ModelCallLimits
) -> AsyncGenerator[Sequence[ModelEvent], None]:
    body = AnswerBody(decoder)
    last_event = time.monotonic()
    begun = ended = False
    try:
        async with AsyncExitStack() as stack:
            read = await _headers(stack, connect, limits)
            begun = True
            reader = PatientReader(read, limits.first_byte, limits.silence)
            stack.callback(reader.close)
            while piece := await reader.read():
                events, failure = body.feed(piece)
                if events:
                    last_event = time.monotonic()
                    yield events
                elif time.monotonic() - last_event > limits.no_event:
                    raise ModelCallError("timeout", again=True, note="only pings")
                if failure is not None:
                    raise failure
                if decoder.done:
                    ended = True
                    yield decoder.end()
                    await _drain(read)
                    return
            events, failure = body.end()
            if events:
                yield events
            if failure is not None:
                raise failure
    except (sdk.APIError, *_TRANSPORT_ERRORS) as error:
        if not decoder.reason_known:
            raise _explain(error, sdk, begun=begun) from None
    if not ended:
        yield decoder.end()


async def _headers(stack: AsyncExitStack, connect: Connect, limits: ModelCallLimits) -> Read:
    """Waits for the headers of the answer. Returns a reader of its body. Raises TimeoutError."""
    async with asyncio.timeout(limits.connect + limits.first_byte):
        return await stack.enter_async_context(connect())


async def _drain(read: Read) -> None:
    """Reads the rest of the body, which usually arrives with the last event. Only then can the connection be reused."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            while await read():
                pass
    except (TimeoutError, *_TRANSPORT_ERRORS):
        pass


def _explain(error: Exception, sdk: SdkErrors, *, begun: bool) -> ModelCallError:
    """Returns the failure. `begun`: the headers of the answer had come.

    After a silence without headers the request is not repeated: a busy server would put it at the end of its queue.
    """
    if isinstance(error, sdk.APIStatusError):
        response: httpx2.Response = error.response  # type: ignore[attr-defined]
        secrets = keys_of(response)
        return of_response(response.status_code, error.body, response.headers, secrets=secrets)  # type: ignore[attr-defined]
    reason = _root(error)
    refusal = isinstance(reason, OSError) and not isinstance(reason, TimeoutError)
    note = _with_address(_in_words(reason) if refusal else type(reason).__name__, error)  # type: ignore[arg-type]
    if isinstance(reason, TimeoutError | httpx2.TimeoutException) and not isinstance(
        reason, aiohttp.ConnectionTimeoutError | httpx2.ConnectTimeout
    ):
        return ModelCallError("timeout", again=begun, note=note)
    return ModelCallError("connection", again=True, note=note)


def _root(error: BaseException) -> BaseException:
    """Returns the first error of the operating system or of aiohttp in the chain, else the last one of the chain.

    The aiohttp transport of the OpenAI SDK reports every lost connection as a timeout of connecting, so the SDK's own
    error does not tell.
    """
    for _ in range(20):
        inner = error.__cause__ or error.__context__
        if isinstance(error, OSError | aiohttp.ClientError) or inner is None:
            break
        error = inner
    return error


def keys_of(response: httpx2.Response) -> list[str]:
    """Returns the keys with which the request was made, to be hidden in what the provider says about them."""
    try:
        sent = response.request.headers
    except RuntimeError:  # an answer without a request
        return []
    found = (value for name, value in sent.items() if _KEY_HEADER.search(name))
    return [secret for value in found for secret in secrets_in(value)]


def _in_words(refusal: OSError) -> str:
    known = refusal.errno is not None and refusal.errno > 0
    return os.strerror(refusal.errno or 0) if known else refusal.strerror or type(refusal).__name__


def _with_address(what: str, error: Exception) -> str:
    """Returns `what` with the scheme, host and port of the server for the log, without the rest of the URL."""
    try:
        url = error.request.url  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # the error comes from elsewhere, or has no request
        return what
    return f"{what}, at {url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")

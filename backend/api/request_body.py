"""Request bodies: their content type, and reading them within a size limit and a time limit."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.datastructures import Headers

from backend.api.body_memory import BodyLease
from backend.api.json_meter import JsonMeter
from backend.errors import AppError, PayloadTooLarge, RequestTimeout, UnsupportedMediaType


def too_large(limit: int) -> PayloadTooLarge:
    """Makes the error for a body of more than `limit` bytes."""
    return PayloadTooLarge(f"The body is too large; the limit is {limit} bytes.")


def check_content_type(headers: Headers) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType


async def read_body(request: Request, limit: int, seconds: float, lease: BodyLease, meter: JsonMeter) -> bytes:
    """Reads a body of at most `limit` bytes, and counts it while it arrives.

    Raises PayloadTooLarge, TooManyValues, TooDeep, ServerBusy, and RequestTimeout after `seconds`.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise too_large(limit)
                lease.hold(len(body))
                meter.feed(piece)
    except TimeoutError:
        raise RequestTimeout from None
    except AppError as error:
        error.closes_connection = True
        raise
    return bytes(body)

"""What goes wrong at a provider, as a stable code and a sentence that the user can act on.

Nothing of what the provider wrote is passed on: it may hold keys, addresses or the prompt.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from backend.chat.models import Json
from backend.errors import ProviderError

SENTENCES: Final[dict[str, str]] = {
    "rate_limited": "The model is getting too many requests right now. Please try again in a minute.",
    "quota_exceeded": "The account at the model provider has run out of credit. Please tell whoever runs this service.",
    "authentication": "The model provider refused this service's API key. Please tell whoever runs this service.",
    "context_too_long": "This conversation is too long for the model. Please start a new one or send less.",
    "content_filter": "The model provider's content filter stopped this. Please put it in other words.",
    "overloaded": "The model is overloaded right now. Please try again in a minute.",
    "timeout": "The model took too long to answer. Please try again.",
    "connection": "The model provider cannot be reached right now. Please try again in a minute.",
    "bad_request": "The model provider refused the request. Please tell whoever runs this service.",
    "unknown_model": "The model provider does not know this model. Please tell whoever runs this service.",
    "provider_error": "Something went wrong at the model provider. Please try again.",
    "provider_incomplete": "The answer of the model broke off before its end. Please try again.",
}

_STATUS_OF_TYPE = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "rate_limit_exceeded": 429,
    "api_error": 500, "server_error": 500, "overloaded_error": 529, "timeout_error": 504,
}  # fmt: skip
_TOO_LONG = re.compile(
    r"context_length|context length|context window|context size|context limit|prompt is too long|input is too long"
    r"|too many (input )?tokens|maximum (prompt|input|number of tokens)|request_too_large|string_above_max_length"
)
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|responsibleaipolicy|moderation|flagged"
)
_NO_CREDIT = re.compile(r"insufficient_quota|insufficient.credit|credit balance|billing_error")


class ModelCallError(ProviderError):
    """A ProviderError that also says whether the same request may be tried again, and how long to wait at least."""

    def __init__(self, code: str, *, again: bool = False, retry_after: float | None = None, note: str = "") -> None:
        super().__init__(SENTENCES[code], code="bad_request" if code == "unknown_model" else code)
        self.again = again
        self.retry_after = retry_after
        self.note = note


def of_response(status: int, body: Json, headers: Mapping[str, str]) -> ModelCallError:
    """The failure that an HTTP answer with an error status means."""
    failure = of_error(body, status=status)
    failure.retry_after = retry_after_of(headers)
    wish = headers.get("x-should-retry")
    if wish in ("true", "false"):
        failure.again = wish == "true"
    return failure


def of_error(body: Json, *, status: int | None = None) -> ModelCallError:
    """The failure that an error object means, inside of a stream or as the body of an answer."""
    error = body.get("error", body) if isinstance(body, dict) else body
    kind = message = param = ""
    if isinstance(error, dict):
        kind = f"{error.get('type') or ''} {error.get('code') or ''}".strip().lower()
        message = f"{error.get('message') or ''} {error.get('metadata') or ''}".lower()
        param = str(error.get("param") or "")
        if status is None:
            status = _status_of(error.get("code"), error.get("type"))
    elif isinstance(error, str):
        message = error.lower()
    code, again = _classify(500 if status is None else status, f"{kind} {message}")
    return ModelCallError(code, again=again, note=f"status={status} kind={kind[:80]!r} param={param[:40]!r}")


def _status_of(*names: Json) -> int | None:
    for name in names:
        if isinstance(name, int) and 400 <= name < 600:
            return name
        if isinstance(name, str) and name in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[name]
    return None


def _classify(status: int, text: str) -> tuple[str, bool]:
    if status == 402 or _NO_CREDIT.search(text):
        return "quota_exceeded", False
    if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(text)):
        return "context_too_long", False
    if status in (400, 403, 422, 451) and _FILTERED.search(text):
        return "content_filter", False
    if status in (401, 403):
        return "authentication", False
    if status == 404:
        return "unknown_model", False
    if status == 429:
        return "rate_limited", True
    if status in (408, 504):
        return "timeout", True
    if status in (503, 529) or "overloaded" in text:
        return "overloaded", True
    if status == 409 or status >= 500:
        return "provider_error", True
    return "bad_request", False


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks to wait, by `retry-after-ms` or `retry-after` (seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        if not (wait := headers.get("retry-after")):
            return None
        if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", wait):
            return float(wait)
        return max(0.0, parsedate_to_datetime(wait).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

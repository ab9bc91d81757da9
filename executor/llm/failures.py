"""Failures of a provider, each with a stable code and a sentence that the user can act on.

The provider's own text is never passed on to users: it may hold keys, addresses or the prompt. The operator's log has
the beginning of it, with secrets masked (`provider_words.py`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Final

from backend.chat.models import Json
from backend.errors import ProviderError
from backend.json_client.retry_after import retry_after_of
from executor.llm.provider_words import is_html, sentence_of

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
    "wrong_address": "There is no model at the address that is set. Please tell whoever runs this service.",
    "provider_error": "Something went wrong at the model provider. Please try again.",
    "provider_incomplete": "The answer of the model broke off before its end. Please try again.",
}

MAX_MESSAGE = 20_000
"""Characters of an error that are read."""
_STATUS_OF_TYPE = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "rate_limit_exceeded": 429,
    "api_error": 500, "server_error": 500, "overloaded_error": 529, "timeout_error": 504,
    "invalid_argument": 400, "unauthenticated": 401, "permission_denied": 403, "not_found": 404,
    "resource_exhausted": 429, "internal": 500, "invalid_prompt": 400, "bio_policy": 400,
    "misalignment_policy_violation": 400, "invalid_encrypted_content": 400,
    "unavailable": 503, "deadline_exceeded": 504,
    "badrequesterror": 400, "ratelimiterror": 429, "throttling_error": 429, "internalservererror": 500,
}  # fmt: skip
_TOO_LONG = re.compile(
    r"context_length|context length|context window|context size|context limit|prompt is too long|input is too long"
    r"|too many (input )?tokens|maximum (prompt|input|number of tokens)|request_too_large|string_above_max_length"
    r"|contextwindowexceeded|exceed_context_size|`?inputs`? tokens \+|reduce the length of the (messages|prompt|input)"
    r"|too large for model with"
)
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|responsibleaipolicy|moderation|flagged"
    r"|bio_policy|policy_violation"
)
_NO_CREDIT = re.compile(r"insufficient_quota|insufficient.credit|credit balance|billing_error|budget_exceeded")
_TOO_FAST = re.compile(r"rate_limit_exceeded|tokens per min|requests per min|\b[tr]pm\b")
_BAD_KEY = re.compile(
    r"api[ _-]?key( is)?( not valid|[ _]invalid| expired)|(invalid|incorrect|expired|missing)[ _]api[ _-]?key"
)
_MODEL = re.compile(r"model|deployment|no endpoints|no allowed providers")
_TRY_AGAIN = re.compile(r"tool_use_failed|failed to call a function")
_WAIT = re.compile(r"(?:try again|retry)(?: after| in)? (?:(\d{1,3})m)?(\d{1,6}(?:\.\d{1,9})?) ?(ms|s\b|sec)")
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")
_ANY_STATUS = range(1_000)
_RULES: Final[tuple[tuple[str, Container[int], re.Pattern[str] | None], ...]] = (
    ("quota_exceeded", {402}, None),
    ("quota_exceeded", _ANY_STATUS, _NO_CREDIT),
    ("rate_limited", {413}, _TOO_FAST),
    ("context_too_long", {413}, None),
    ("context_too_long", {400, 422, 500}, _TOO_LONG),
    ("content_filter", {400, 403, 422, 451}, _FILTERED),
    ("authentication", {401, 403}, None),
    ("authentication", {400}, _BAD_KEY),
    ("provider_error", {400}, _TRY_AGAIN),
    ("unknown_model", {404}, _MODEL),
    ("wrong_address", {404, 405}, None),
    ("rate_limited", {429}, None),
    ("timeout", {408, 504}, None),
    ("overloaded", {498, 503, 529}, None),
    ("overloaded", _ANY_STATUS, re.compile("overloaded")),
    ("provider_error", {409, *range(500, 1_000)}, None),
    ("bad_request", _ANY_STATUS, None),
)
"""Rows of code, HTTP statuses, and a pattern that the text must match too if there is one. The first match counts."""
_TRANSIENT = frozenset({"rate_limited", "timeout", "overloaded", "provider_error"})


class ModelCallError(ProviderError):
    """A ProviderError that says if a retry may help. `retry_after` is the shortest wait in s.

    For the log: `note` is our own description, `said` what the provider says, masked.
    """

    def __init__(
        self, code: str, *, again: bool = False, retry_after: float | None = None, note: str = "", said: str = ""
    ) -> None:
        super().__init__(SENTENCES[code], code=_PUBLIC.get(code, code))
        self.again = again
        self.retry_after = retry_after
        self.note = note
        self.said = said


_PUBLIC: Final = {"unknown_model": "bad_request", "wrong_address": "bad_request"}
"""Codes that users need not tell apart."""
CODES: Final = tuple(code for code in SENTENCES if code not in _PUBLIC)
"""The codes with which a model call may fail."""


def of_response(status: int, body: Json, headers: Mapping[str, str], *, secrets: Iterable[str] = ()) -> ModelCallError:
    """Returns the failure for an HTTP answer with an error status. `secrets` are kept out of the log."""
    failure = of_error(body, status=status, secrets=secrets)
    wait = retry_after_of(headers)
    failure.retry_after = failure.retry_after if wait is None else wait
    should_retry = headers.get("x-should-retry")
    if should_retry in ("true", "false"):
        failure.again = should_retry == "true"
    return failure


def of_page(body: str) -> ModelCallError:
    """Returns the failure for a web page or another text in place of an answer, as from a server of another kind."""
    return ModelCallError("wrong_address", note="no answer of a model", said=sentence_of(body))


def of_error(body: Json, *, status: int | None = None, secrets: Iterable[str] = ()) -> ModelCallError:
    """Returns the failure for an error object, sent inside a stream or as the body of an answer.

    Gemini's endpoint puts the object into a list.
    """
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else body
    kind = message = param = ""
    if isinstance(error, dict):
        kind = " ".join(str(error[name])[:100] for name in ("type", "code", "status") if error.get(name)).lower()
        words = (error.get(name) or "" for name in ("message", "metadata", "detail", "details"))
        message = " ".join(str(word) for word in words if word)[:MAX_MESSAGE].lower()
        param = str(error.get("param") or "")
        if status is None:
            status = _status_of(error.get("code"), error.get("type"), error.get("status"))
    elif isinstance(error, str):
        message = error[:MAX_MESSAGE].lower()
    code = "wrong_address" if is_html(error) and status in (404, 405) else None
    code = code or _code_of(500 if status is None else status, f"{kind} {message}")
    note = f"status={status} kind={kind[:80]!r} param={param[:40]!r}"
    wait = _wait_in(error, message) if code in _TRANSIENT else None
    again = code in _TRANSIENT
    return ModelCallError(code, again=again, retry_after=wait, note=note, said=sentence_of(error, secrets))


def _status_of(*names: Json) -> int | None:
    for name in names:
        number = int(name) if isinstance(name, str) and name.isdecimal() and len(name) == 3 else name
        if isinstance(number, int) and 400 <= number < 600:
            return number
        if isinstance(name, str) and name.lower() in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[name.lower()]
    return None


def _wait_in(error: Json, message: str) -> float | None:
    """Returns the seconds that an error asks for: Gemini's `retryDelay`, or `try again in 7.66s` in the sentence."""
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (found := _DURATION.fullmatch(delay)):
            return float(found[1])
    if (told := _WAIT.search(message)) is None:
        return None
    return int(told[1] or 0) * 60 + float(told[2]) / (1000 if told[3] == "ms" else 1)


def _code_of(status: int, text: str) -> str:
    """Returns the code of the first rule that fits. `text` is lower-case."""
    return next(
        code
        for code, statuses, pattern in _RULES
        if status in statuses and (pattern is None or pattern.search(text) is not None)
    )

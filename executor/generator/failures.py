"""Failures of the generator: a stable type, a sentence that the user can act on, and details that are safe to show."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from backend.chat.models import Json
from backend.json_client.failures import CallFailure
from backend.json_client.redacting import safe_details


class ErrorType(StrEnum):
    """The error types of the contract. No others are used."""

    RATE_LIMIT = "rate_limit"
    SERVICE_UNAVAILABLE = "service_unavailable"
    TIMEOUT = "timeout"
    HTTP_ERROR = "http_error"
    CONNECTION_ERROR = "connection_error"
    REQUEST_ERROR = "request_error"
    INVALID_RESPONSE = "invalid_response"
    UNEXPECTED_ERROR = "unexpected_error"
    LLM_PARSE_ERROR = "llm_parse_error"
    VALIDATION_ERROR = "validation_error"
    PATCH_ERROR = "patch_error"


SENTENCES: Final[dict[ErrorType, str]] = {
    ErrorType.RATE_LIMIT: "The agent generator is getting too many requests right now. Please try again in a minute.",
    ErrorType.SERVICE_UNAVAILABLE: "The agent generator is not available right now. Please try again in a few minutes.",
    ErrorType.TIMEOUT: "The agent generator took too long. Please try again, or describe a simpler agent.",
    ErrorType.HTTP_ERROR: "The agent generator refused the request. Please try again, or tell whoever runs this "
    "service if it happens again.",
    ErrorType.CONNECTION_ERROR: "The agent generator cannot be reached right now. Please try again in a few minutes.",
    ErrorType.REQUEST_ERROR: "The request could not be sent to the agent generator. Please try again, or put it in "
    "other words.",
    ErrorType.INVALID_RESPONSE: "The answer of the agent generator could not be read. Please try again.",
    ErrorType.UNEXPECTED_ERROR: "Something went wrong at the agent generator. Please try again.",
    ErrorType.LLM_PARSE_ERROR: "The agent generator could not make an agent of this. Please try again, or describe it "
    "in simpler words.",
    ErrorType.VALIDATION_ERROR: "The agent that was generated would not work. Please describe in more detail what it "
    "should do, step by step.",
    ErrorType.PATCH_ERROR: "The change could not be made to the agent. Please describe the change in other words, or "
    "make smaller changes one by one.",
}


class GeneratorFailure(CallFailure):
    """A failed call or failed work. `reported`: the generator says that the work itself has failed."""

    reported = False

    def __init__(
        self, error_type: ErrorType, *, details: Json = None, note: str = "", retry_after: float | None = None
    ) -> None:
        self.error_type = error_type
        super().__init__(SENTENCES[error_type], details=details, note=note, retry_after=retry_after)

    @classmethod
    def from_body(cls, document: Json) -> GeneratorFailure:
        """Returns the failure for a body `{success: false, error?, error_type?, details?}`.

        An unknown type becomes `unexpected_error`. The generator's own text becomes redacted details.
        """
        body = document if isinstance(document, dict) else {}
        given = {name: body[name] for name in ("error", "details") if body.get(name) not in (None, "", [], {})}
        details = safe_details(given) if given else None
        failure = cls(_known(body.get("error_type")), details=details, note="reported by the generator")
        failure.reported = True
        return failure


def _known(name: Json) -> ErrorType:
    try:
        return ErrorType(name)
    except ValueError:
        return ErrorType.UNEXPECTED_ERROR

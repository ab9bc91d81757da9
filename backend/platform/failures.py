"""Failures of the agent platform: a stable code, a sentence that the user can act on, and details that may be shown."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from backend.chat.models import Json
from backend.chat.outcomes import Outcome
from backend.json_client.failures import CallFailure


class Failure(StrEnum):
    """The codes. Tools show them as `error`."""

    INVALID_REQUEST = "invalid_request"
    NO_CREDIT = "no_credit"
    DISABLED = "disabled"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    INVALID_GRAPH = "invalid_graph"
    INVALID_INPUT = "invalid_input"
    BLOCK_FAILED = "block_failed"
    TOO_MANY = "too_many"
    UNAVAILABLE = "tool_unavailable"
    TIMEOUT = "timeout"
    OUTPUT_TOO_LARGE = "output_too_large"
    INVALID_RESPONSE = "invalid_response"
    PLATFORM_ERROR = "platform_error"


SENTENCES: Final[dict[Failure, str]] = {
    Failure.INVALID_REQUEST: "The agent platform refused the request.",
    Failure.NO_CREDIT: "There is no credit left on the agent platform for this run.",
    Failure.DISABLED: "The agent platform does not allow this.",
    Failure.NOT_FOUND: "The agent platform does not know it.",
    Failure.CONFLICT: "The agent platform has another agent under this id and version. Save the agent as a new version "
    "and try again.",
    Failure.TOO_LARGE: "This is too large for the agent platform.",
    Failure.UNSUPPORTED: "The agent platform does not offer this.",
    Failure.INVALID_GRAPH: "The agent platform cannot run this agent as it is. Change the agent and try again.",
    Failure.INVALID_INPUT: "The agent platform refused the inputs.",
    Failure.BLOCK_FAILED: "The block has failed.",
    Failure.TOO_MANY: "The agent platform is getting too many requests right now. Please try again in a minute.",
    Failure.UNAVAILABLE: "The agent platform cannot be reached right now. Please try again in a few minutes.",
    Failure.TIMEOUT: "The agent platform took too long.",
    Failure.OUTPUT_TOO_LARGE: "The output is too large to be shown.",
    Failure.INVALID_RESPONSE: "The answer of the agent platform could not be read.",
    Failure.PLATFORM_ERROR: "Something went wrong at the agent platform. Please try again.",
}
_UNDECIDED = frozenset(
    {Failure.UNAVAILABLE, Failure.TIMEOUT, Failure.TOO_MANY, Failure.INVALID_RESPONSE, Failure.PLATFORM_ERROR}
)


class PlatformFailure(CallFailure):
    """A failed call. `sent`: the platform may have acted on the request."""

    def __init__(
        self,
        failure: Failure,
        *,
        details: Json = None,
        note: str = "",
        sent: bool = False,
        retry_after: float | None = None,
    ) -> None:
        self.failure = failure
        self.sent = sent
        super().__init__(SENTENCES[failure], details=details, note=note, retry_after=retry_after)

    @property
    def undecided(self) -> bool:
        """Returns True if the same request may succeed later. Otherwise the platform has refused it for good."""
        return self.failure in _UNDECIDED

    @property
    def outcome(self) -> Outcome:
        """The outcome of an operation that ends with this failure."""
        return Outcome(False, {"error_type": self.failure.value, "details": self.details}, self.message)

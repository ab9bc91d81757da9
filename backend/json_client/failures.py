"""Failures of calls to services that answer with JSON."""

from __future__ import annotations

from backend.chat.models import Json


class CallFailure(Exception):
    """A failed call. `message` is for the user; `details` holds bounded, redacted values for the user, or is None.

    `note` is for the log. `retry_after` is the wait in seconds that the service asked for.
    """

    def __init__(self, message: str, *, details: Json = None, note: str = "", retry_after: float | None = None) -> None:
        self.message = message
        self.details = details
        self.note = note
        self.retry_after = retry_after
        super().__init__(message)


class BodyCompressed(Exception):
    """The body of an answer is compressed, although no compression was asked for."""

    def __init__(self) -> None:
        super().__init__("compressed")


class BodyTooLarge(Exception):
    """The body of an answer is larger than allowed."""

    def __init__(self) -> None:
        super().__init__("too large")

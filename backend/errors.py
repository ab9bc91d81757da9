"""Every error that has a name. The docstring of a class is its message.

AppError                      answered to the caller as problem+json
├── BadRequest          400   InvalidJson, DuplicateKey, InvalidCursor, InvalidIdempotencyKey
├── Unauthenticated     401   TokenExpired
├── Forbidden           403
├── NotFound            404   SessionNotFound, TaskNotFound, MessageNotFound, AgentNotFound
├── MethodNotAllowed    405
├── RequestTimeout      408
├── TurnInProgress      409
├── Gone                410   CursorExpired, TaskExpired
├── PayloadTooLarge     413
├── UnsupportedMediaType 415
├── Unprocessable       422   ValidationFailed, UnknownField, InvalidUnicode, InvalidNumber, TooDeep, EmptyMessage,
│                             MessageTooLong, IdempotencyKeyReused, UnsupportedPart, InvalidAgent
├── RateLimited         429   QueueFull, TooManyStreams
└── Unavailable         503

AttemptEnded                  why an executor stops working on a task without ending it; nobody is told
├── Fenced                    a newer attempt owns the task
├── StreamGone                the stream's key is no longer in Redis
└── StreamUnavailable         Redis did not take a batch in time

ReadingEnded                  why a reader gets no more; the transport says it, not a body
├── NothingLeft               the cursor is at the end of an ended stream (204)
└── StreamCut                 an open stream cannot go on to its `finish`: the connection is aborted

ProviderError                 the model could not answer; its text is a sentence for the user
ConfigError                   a setting is wrong or missing; stops the process at start
ChildFailedError              a child process does not start or stay; stops the process that needs it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class AppError(Exception):
    """Something went wrong on our side."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retry_after: int | None = None

    def __init__(self, detail: str | None = None, *, retry_after: int | None = None, **extra: Any) -> None:
        """`detail` replaces the docstring; `extra` becomes members of the problem document."""
        self.detail = detail or " ".join((self.__doc__ or "").split())
        self.extra = extra
        if retry_after is not None:
            self.retry_after = retry_after
        super().__init__(self.detail)


class BadRequest(AppError):
    """The request cannot be read."""

    code, status = "bad_request", 400


class InvalidJson(BadRequest):
    """The body is not valid JSON."""

    code = "invalid_json"


class DuplicateKey(BadRequest):
    """An object in the body has the same key twice."""

    code = "duplicate_key"


class InvalidCursor(BadRequest):
    """A cursor looks like 12-34."""

    code = "invalid_cursor"


class InvalidIdempotencyKey(BadRequest):
    """An idempotency key is 1 to 255 printable ASCII characters."""

    code = "invalid_idempotency_key"


class Unauthenticated(AppError):
    """A valid bearer token is needed."""

    code, status = "unauthenticated", 401


class TokenExpired(Unauthenticated):
    """The token of this stream has expired; sign in and resume."""

    code = "token_expired"


class InvalidApiKey(AppError):
    """A valid service key is needed."""

    code, status = "invalid_api_key", 401


class SignatureInvalid(AppError):
    """The signature does not fit this message, or is too old."""

    code, status = "signature_invalid", 401


class Forbidden(AppError):
    """Not allowed for this caller."""

    code, status = "forbidden", 403


class NotFound(AppError):
    """There is nothing here."""

    code, status = "not_found", 404


class SessionNotFound(NotFound):
    """No such session."""

    code = "session_not_found"


class TaskNotFound(NotFound):
    """No such task."""

    code = "task_not_found"


class OperationNotFound(NotFound):
    """No such operation."""

    code = "operation_not_found"


class MessageNotFound(NotFound):
    """No such message in this session."""

    code = "message_not_found"


class AgentNotFound(NotFound):
    """No such agent in this library, or no such version of it."""

    code = "agent_not_found"


class MethodNotAllowed(AppError):
    """This path does not take that method."""

    code, status = "method_not_allowed", 405


class RequestTimeout(AppError):
    """The body did not arrive in time."""

    code, status = "request_timeout", 408


class TurnInProgress(AppError):
    """A turn is running in this session."""

    code, status = "turn_in_progress", 409


class AlreadyCompleted(AppError):
    """This operation has ended with another outcome, which stands."""

    code, status = "already_completed", 409


class Gone(AppError):
    """It was here and is no longer."""

    code, status = "gone", 410


class CursorExpired(Gone):
    """This cursor cannot be served any more; fetch the conversation anew."""

    code = "cursor_expired"


class TaskExpired(Gone):
    """The stream of this task is gone; its result is in the conversation."""

    code = "task_expired"


class OperationGone(Gone):
    """This operation was cancelled, or its time was over; nothing is changed any more."""

    code = "operation_gone"


class PayloadTooLarge(AppError):
    """The body is too large."""

    code, status = "payload_too_large", 413


class UnsupportedMediaType(AppError):
    """Send application/json."""

    code, status = "unsupported_media_type", 415


class Unprocessable(AppError):
    """The request is well formed and cannot be taken."""

    code, status = "unprocessable", 422


class ValidationFailed(Unprocessable):
    """The request does not have the right shape."""

    code = "validation_error"


class UnknownField(Unprocessable):
    """The request has a field that this endpoint does not know."""

    code = "unknown_field"


class InvalidUnicode(Unprocessable):
    """Text may hold neither NUL nor lone surrogates."""

    code = "invalid_unicode"


class InvalidNumber(Unprocessable):
    """A number in the body is not finite or too long."""

    code = "invalid_number"


class TooDeep(Unprocessable):
    """The body is nested too deeply; the limit is 32 levels."""

    code = "too_deep"


class EmptyMessage(Unprocessable):
    """The message has no text."""

    code = "empty_message"


class MessageTooLong(Unprocessable):
    """The message is too long."""

    code = "message_too_long"


class IdempotencyKeyReused(Unprocessable):
    """This message id was used before with another text."""

    code = "idempotency_key_reused"


class UnsupportedPart(Unprocessable):
    """A part of the message is of a type that cannot be taken."""

    code = "unsupported_part"


class InvalidAgent(Unprocessable):
    """What is wrong with an agent's JSON, in sentences that quote nothing of it but ids."""

    code = "invalid_agent"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"This is no agent that can be saved. {' '.join(problems)}", problems=list(problems))


class RateLimited(AppError):
    """Too many turns are running; wait for one to end."""

    code, status = "rate_limited", 429
    retry_after = 5


class QueueFull(RateLimited):
    """Too many messages are waiting; wait for one to be answered."""

    code = "queue_full"


class TooManyStreams(RateLimited):
    """Too many streams are open; close one first."""

    code = "too_many_streams"


class Unavailable(AppError):
    """A service that this needs is away; try again soon."""

    code, status = "unavailable", 503
    retry_after = 2


class WebhookNotConfigured(Unavailable):
    """This server has no key for services, so it takes nothing from them."""

    code = "webhook_not_configured"
    retry_after = 300


class AttemptEnded(Exception):
    """This attempt at a task is over, the task is not."""


class Fenced(AttemptEnded):
    """A newer attempt owns the task."""


class StreamGone(AttemptEnded):
    """The stream's key is no longer in Redis."""


class StreamUnavailable(AttemptEnded):
    """Redis did not take a batch in time."""


class ReadingEnded(Exception):
    """A reader of a stream gets no more."""


class NothingLeft(ReadingEnded):
    """The cursor is at the end of an ended stream: there is nothing to send."""


class StreamCut(ReadingEnded):
    """The stream cannot go on to its `finish`. Abort the connection: a clean end would look like the answer's."""


class ProviderError(Exception):
    """The model could not answer. `str(error)` is a sentence for the user, `code` is stable; neither holds secrets."""

    def __init__(self, sentence: str, *, code: str = "provider_error") -> None:
        self.code = code
        super().__init__(sentence)


class ConfigError(Exception):
    """A setting is wrong or missing. The message is one line that names it."""


class ChildFailedError(Exception):
    """A child process ended, or was not ready in time. The message is one line."""

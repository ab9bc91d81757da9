"""Every error that a caller of the API gets, and the errors that several packages share.

The docstring of an AppError is its default message, in the `detail` of the answer.

AppError                      answered to the caller as problem+json
├── BadRequest          400   InvalidJson, DuplicateKey, InvalidCursor, InvalidIdempotencyKey
├── Unauthenticated     401   TokenExpired
├── InvalidApiKey       401
├── SignatureInvalid    401
├── Forbidden           403   HostNotAllowed, ForeignOrigin, PlatformRefused
├── NotFound            404   SessionNotFound, TaskNotFound, OperationNotFound, MessageNotFound, ResultNotFound,
│                             AgentNotFound, ModelNotFound, WebhookNotFound, FileNotFound, RunNotFound,
│                             ScheduleNotFound, FolderNotFound, ShareNotFound, PushNotFound
├── MethodNotAllowed    405
├── RequestTimeout      408
├── TurnInProgress      409
├── MessageTakenIn      409
├── NoActiveTurn        409
├── AlreadyCompleted    409
├── WebhookReused       409
├── WebhookDisabled     409
├── FileInOtherSession  409
├── PlatformConflict    409
├── FolderExists        409
├── Gone                410   CursorExpired, TaskExpired, OperationGone
├── PayloadTooLarge     413   TooManyValues, FileTooLarge, PictureTooLarge
├── UnsupportedMediaType 415  UnsupportedFile
├── Unprocessable       422   ValidationFailed, UnknownField, InvalidUnicode, InvalidNumber, TooDeep, EmptyMessage,
│                             MessageTooLong, IdempotencyKeyReused, UnsupportedPart, UnsupportedParameter, InvalidAgent,
│                             UnknownModel, UnknownEffort, SearchTooBroad, InvalidWebhookUrl, UnreadableFile,
│                             ForeignFileUrl, TooManyParts, InvalidPath, AgentNotRunnable, InvalidInputs,
│                             InvalidSchedule, ConversationTooLarge, InvalidConversation
├── RateLimited         429   QueueFull, TooManyStreams, TooManySessions, TooManyOperations, TooManyAgents,
│                             TooManyWebhooks, TooManyRuns, TooManySchedules, TooManyFiles,
│                             TooManyFolders, TooManyReads, TooManyFeatureRequests
└── Unavailable         503   ServerBusy, WebhookNotConfigured, PlatformUnavailable, PlatformNotConfigured

AttemptEnded                  an executor stops working on a task without ending it; callers do not see this
├── Fenced                    a newer attempt owns the task
├── StreamGone                the stream's key is no longer in Redis
└── StreamUnavailable         Redis did not accept a batch in time

ReadingEnded                  a reader gets no more entries; the transport shows it, not a body
├── NothingLeft               the cursor is at the end of an ended stream (204)
└── StreamCut                 an open stream cannot reach its `finish`; the connection is aborted

ProviderError                 the model could not answer; its text is a sentence for the user
NoMaster                      no Sentinel, or no node of a cluster, names a Redis master
ConfigError                   a setting is wrong or missing; stops the process at start
ChildFailedError              a child process did not start or ended; stops the process that needs it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class AppError(Exception):
    """An internal error occurred."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retry_after: int | None = None
    closes_connection = False
    """True if a part of the request was not read, so that the connection cannot be used again."""

    def __init__(self, detail: str | None = None, *, retry_after: int | None = None, **extra: Any) -> None:
        """`detail` replaces the docstring as the message; `extra` becomes members of the problem document."""
        self.detail = detail or " ".join((self.__doc__ or "").split())
        self.extra = extra
        if retry_after is not None:
            self.retry_after = retry_after
        super().__init__(self.detail)


class BadRequest(AppError):
    """The request could not be read."""

    code, status = "bad_request", 400


class InvalidJson(BadRequest):
    """The body is not valid JSON."""

    code = "invalid_json"


class DuplicateKey(BadRequest):
    """An object in the body has the same key twice."""

    code = "duplicate_key"


class InvalidCursor(BadRequest):
    """The cursor is invalid. A cursor looks like 12-34."""

    code = "invalid_cursor"


class InvalidIdempotencyKey(BadRequest):
    """An idempotency key must be 1 to 255 printable ASCII characters."""

    code = "invalid_idempotency_key"


class Unauthenticated(AppError):
    """A valid bearer token is required."""

    code, status = "unauthenticated", 401


class TokenExpired(Unauthenticated):
    """The token of this stream has expired. Sign in again and resume."""

    code = "token_expired"


class InvalidApiKey(AppError):
    """A valid service key is required."""

    code, status = "invalid_api_key", 401


class SignatureInvalid(AppError):
    """The signature does not match this message, or is too old."""

    code, status = "signature_invalid", 401


class Forbidden(AppError):
    """This caller is not allowed to do this."""

    code, status = "forbidden", 403


class PlatformRefused(Forbidden):
    """The agent platform does not allow this."""

    code = "platform_refused"


class HostNotAllowed(Forbidden):
    """This server does not answer to this host name. The setting ALLOWED_HOSTS lists more names."""

    code = "host_not_allowed"


class ForeignOrigin(Forbidden):
    """Web pages of other origins may not call this server without a token. FRONTEND_BASE_URL lists allowed origins."""

    code = "foreign_origin"


class NotFound(AppError):
    """Nothing was found at this address."""

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


class ResultNotFound(NotFound):
    """No such result of a tool call in this task."""

    code = "result_not_found"


class AgentNotFound(NotFound):
    """No such agent in this library, or no such version of it."""

    code = "agent_not_found"


class RunNotFound(NotFound):
    """No such run of this agent."""

    code = "run_not_found"


class ScheduleNotFound(NotFound):
    """No such schedule."""

    code = "schedule_not_found"


class ModelNotFound(NotFound):
    """There is no model of this name."""

    code = "model_not_found"


class FolderNotFound(NotFound):
    """No such folder."""

    code = "folder_not_found"


class ShareNotFound(NotFound):
    """This link leads to no conversation. It may have been withdrawn."""

    code = "share_not_found"


class WebhookNotFound(NotFound):
    """No such webhook, or no such delivery of it."""

    code = "webhook_not_found"


class PushNotFound(NotFound):
    """This task has no such push notification config."""

    code = "push_not_found"


class FileNotFound(NotFound):
    """No such file. A file that no message uses is deleted after a day."""

    code = "file_not_found"


class MethodNotAllowed(AppError):
    """This path does not support that method."""

    code, status = "method_not_allowed", 405


class RequestTimeout(AppError):
    """The body did not arrive in time."""

    code, status = "request_timeout", 408


class TurnInProgress(AppError):
    """A turn is running in this session."""

    code, status = "turn_in_progress", 409


class MessageTakenIn(AppError):
    """An answer has read this message in its middle, so it cannot be edited by itself. Send a new message."""

    code, status = "message_taken_in", 409


class NoActiveTurn(AppError):
    """No turn is running in this session, so nothing can wait for it; start a turn."""

    code, status = "no_active_turn", 409


class AlreadyCompleted(AppError):
    """This operation has already ended with a different outcome, which is kept."""

    code, status = "already_completed", 409


class ConnectionNotFound(NotFound):
    """You are not signed in at a tool server of that name."""

    code = "connection_not_found"


class WebhookReused(AppError):
    """This signed message was sent for another operation before."""

    code, status = "webhook_reused", 409


class WebhookDisabled(AppError):
    """This webhook is disabled. Enable it first."""

    code, status = "webhook_disabled", 409


class FolderExists(AppError):
    """You have another folder of this name."""

    code, status = "folder_exists", 409


class FileInOtherSession(AppError):
    """The file belongs to another conversation. Upload it again."""

    code, status = "file_in_other_session", 409


class PlatformConflict(AppError):
    """The agent platform has another request under this key, or another agent under this version."""

    code, status = "platform_conflict", 409


class Gone(AppError):
    """This is no longer available."""

    code, status = "gone", 410


class CursorExpired(Gone):
    """This cursor has expired. Load the conversation again."""

    code = "cursor_expired"


class TaskExpired(Gone):
    """The stream of this task has expired. Its result is in the conversation."""

    code = "task_expired"


class OperationGone(Gone):
    """This operation was cancelled or timed out, so nothing was changed."""

    code = "operation_gone"


class PayloadTooLarge(AppError):
    """The body is too large."""

    code, status = "payload_too_large", 413


class TooManyValues(PayloadTooLarge):
    """The body has too many values."""

    code = "too_many_values"


class FileTooLarge(PayloadTooLarge):
    """The file is too large."""

    code = "file_too_large"


class PictureTooLarge(PayloadTooLarge):
    """The picture has too many pixels; the limit is 40 million."""

    code = "picture_too_large"


class UnsupportedMediaType(AppError):
    """The content type must be application/json."""

    code, status = "unsupported_media_type", 415


class UnsupportedFile(UnsupportedMediaType):
    """Files may be PNG, JPEG, WebP and GIF pictures, PDF, Word documents (.docx), workbooks (.xlsx, .xls, .ods), and
    text in UTF-8 (CSV, JSON, Markdown and others).
    """

    code = "unsupported_file"


class Unprocessable(AppError):
    """The request is well formed but cannot be processed."""

    code, status = "unprocessable", 422


class ValidationFailed(Unprocessable):
    """The request does not have the required format."""

    code = "validation_error"


class UnknownField(Unprocessable):
    """The request has a field that this endpoint does not accept."""

    code = "unknown_field"


class InvalidUnicode(Unprocessable):
    """Text must not contain NUL characters or lone surrogates."""

    code = "invalid_unicode"


class InvalidNumber(Unprocessable):
    """A number in the body is not finite or is out of range."""

    code = "invalid_number"


class TooDeep(Unprocessable):
    """The body is nested too deeply. The limit is 32 levels."""

    code = "too_deep"


class EmptyMessage(Unprocessable):
    """The message has no text."""

    code = "empty_message"


class MessageTooLong(Unprocessable):
    """The message is too long."""

    code = "message_too_long"


class IdempotencyKeyReused(Unprocessable):
    """This message id was already used with a different text."""

    code = "idempotency_key_reused"


class UnsupportedPart(Unprocessable):
    """A part of the message has a type that is not supported."""

    code = "unsupported_part"


class UnreadableFile(Unprocessable):
    """The file is damaged or protected, and cannot be read."""

    code = "unreadable_file"


class InvalidPath(Unprocessable):
    """A path has up to 200 characters and 8 names, without `..`, backslashes and control characters."""

    code = "invalid_path"


class ForeignFileUrl(Unprocessable):
    """The url of a file must be one of this server, or a data URL. Upload the file to POST /api/chat/files first."""

    code = "foreign_file_url"


class TooManyParts(Unprocessable):
    """A message may have 20 files."""

    code = "too_many_parts"


class UnknownModel(Unprocessable):
    """There is no model with this id. The member `models` has the ids of those that answer."""

    code = "unknown_model"


class UnknownEffort(Unprocessable):
    """The model has no such level of effort. The member `efforts` has those of the model."""

    code = "unknown_effort"


class UnsupportedParameter(Unprocessable):
    """A parameter of the request is not supported."""

    code = "unsupported_parameter"


class InvalidWebhookUrl(Unprocessable):
    """Events cannot be sent to this URL."""

    code = "invalid_webhook_url"


class ConversationTooLarge(Unprocessable):
    """The conversation is too large for one file. Read it in pages, with `before`."""

    code = "conversation_too_large"


class InvalidConversation(Unprocessable):
    """This is no conversation that was exported as JSON."""

    code = "invalid_conversation"


class InvalidAgent(Unprocessable):
    """The agent's JSON is not valid."""

    code = "invalid_agent"

    def __init__(self, problems: Sequence[str]) -> None:
        """`problems` are sentences; of the agent's JSON they quote only ids."""
        self.problems = tuple(problems)
        super().__init__(f"This agent cannot be saved. {' '.join(problems)}", problems=list(problems))


class AgentNotRunnable(Unprocessable):
    """The agent platform cannot run this version of the agent. Change the agent and try again."""

    code = "agent_not_runnable"


class InvalidInputs(Unprocessable):
    """The inputs of the agent are missing or wrong."""

    code = "invalid_inputs"


class InvalidSchedule(Unprocessable):
    """The schedule is not valid."""

    code = "invalid_schedule"


class SearchTooBroad(Unprocessable):
    """The search takes too long. Use fewer or rarer words."""

    code = "search_too_broad"


class RateLimited(AppError):
    """Too many turns are running. Wait for one to end."""

    code, status = "rate_limited", 429
    retry_after = 5


class QueueFull(RateLimited):
    """Too many messages are waiting. Wait for one to be answered."""

    code = "queue_full"


class TooManySteers(RateLimited):
    """Too many messages wait until the running turn takes them in. Queue it, or wait a moment."""

    code = "too_many_steers"


class TooManyStreams(RateLimited):
    """Too many streams are open. Close one first."""

    code = "too_many_streams"


class TooManySessions(RateLimited):
    """Too many conversations were created in a minute. Wait a moment."""

    code = "too_many_sessions"


class TooManyAgents(RateLimited):
    """The library is full. Delete an agent first."""

    code = "too_many_agents"


class TooManyOperations(RateLimited):
    """Too many operations have not ended yet."""

    code = "too_many_operations"


class TooManyRuns(RateLimited):
    """This conversation has begun too many runs of agents."""

    code = "too_many_runs"


class TooManySchedules(RateLimited):
    """This conversation has made too many schedules."""

    code = "too_many_schedules"


class TooManyFeatureRequests(RateLimited):
    """You have asked for too many features."""

    code = "too_many_feature_requests"


class TooManyFolders(RateLimited):
    """You have too many folders. Delete one first."""

    code = "too_many_folders"


class TooManyReads(RateLimited):
    """Too many shared conversations were read from this address. Try again in a minute."""

    code = "too_many_reads"


class TooManyWebhooks(RateLimited):
    """You have too many webhooks. Delete one first."""

    code = "too_many_webhooks"


class TooManyFiles(RateLimited):
    """Your files take all the room that you have. Delete conversations, or files, first."""

    code = "too_many_files"


class Unavailable(AppError):
    """A required service is unavailable. Please retry shortly."""

    code, status = "unavailable", 503
    retry_after = 2


class ServerBusy(Unavailable):
    """The server holds too many large request bodies. Please retry shortly."""

    code = "server_busy"


class WebhookNotConfigured(Unavailable):
    """No service key is configured, so this server accepts no requests from services."""

    code = "webhook_not_configured"
    retry_after = 300


class PlatformUnavailable(Unavailable):
    """The agent platform did not answer in time. Please retry shortly."""

    code = "platform_unavailable"
    retry_after = 5


class PlatformNotConfigured(Unavailable):
    """No agent platform is configured, so this server runs no agents."""

    code = "platform_not_configured"
    retry_after = 300


class AttemptEnded(Exception):
    """This attempt at a task has ended; the task has not."""


class Fenced(AttemptEnded):
    """A newer attempt owns the task."""


class StreamGone(AttemptEnded):
    """The stream's key is no longer in Redis."""


class StreamUnavailable(AttemptEnded):
    """Redis did not accept a batch in time."""


class ReadingEnded(Exception):
    """A reader of a stream gets no more entries."""


class NothingLeft(ReadingEnded):
    """The cursor is at the end of an ended stream, so there is nothing to send."""


class StreamCut(ReadingEnded):
    """The stream cannot reach its `finish`. Abort the connection: a clean end would look like the end of the answer."""


class ProviderError(Exception):
    """The model could not answer. `str(error)` is a sentence for the user, without secrets; `code` is stable."""

    def __init__(self, sentence: str, *, code: str = "provider_error") -> None:
        self.code = code
        super().__init__(sentence)


class NoMaster(OSError):
    """No Sentinel, or no node of a cluster, names a master. The message says why, and has no part of a login."""


class ConfigError(Exception):
    """A setting is wrong or missing. The message is one line that names it, or a line for each fault."""


class ChildFailedError(Exception):
    """A child process ended, or was not ready in time. The message is one line."""

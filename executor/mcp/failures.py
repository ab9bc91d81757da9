"""Failures of an MCP server or of a call to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mcp import MCPError
from mcp_types import ElicitRequestURLParams

from backend.chat.models import Json
from backend.logs import why_away
from executor.mcp.messages import ClientErrorCode

_OWN = frozenset(ClientErrorCode)
MAX_WORDS = 300
"""Characters of a server's own words in the log and in the health report."""


class ReasonKind(StrEnum):
    """The kinds of reasons for which a server is unavailable, as the metric counts them."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    NOT_ALLOWED = "method_not_allowed"
    RATE_LIMITED = "rate_limited"
    REDIRECTED = "redirected"
    SERVER_ERROR = "server_error"
    TLS = "tls"
    UNREACHABLE = "unreachable"
    EXITED = "exited"
    SLOW = "does_not_answer"
    PROTOCOL = "protocol"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason in words, and its kind. The words hold no URL and none of our credentials."""

    words: str
    kind: ReasonKind = ReasonKind.OTHER


class LastFailure:
    """The last reason why a server did not serve this client, as its transport saw it. None after a good answer."""

    def __init__(self) -> None:
        self.why: Reason | None = None
        self.challenge: Json = None
        """What the server has said about the sign-in that it wants; None if it wants none."""


class ServerGone(Exception):
    """A connection ended. The message gives the reason."""

    def __init__(self, words: str, kind: ReasonKind = ReasonKind.OTHER) -> None:
        super().__init__(words)
        self.kind = kind


class ServerUnavailable(Exception):
    """The call was not sent, or the server did not run it. The message, which may be empty, says why.

    `why` is set if a connection could not be made for it.
    """

    def __init__(self, words: str = "", why: Reason | None = None) -> None:
        super().__init__(words)
        self.why = why


class ServerBusy(Exception):
    """The call waited too long for a slot and was not sent."""


class SessionLost(Exception):
    """The server does not know this connection's session any longer. The call did not run."""


class ServerLost(Exception):
    """The connection ended during the call, so it is unknown whether the call took effect."""


class AnswerTooLarge(Exception):
    """The answer was too large to be read. The call has run."""


class CallRefused(Exception):
    """The server answered a call without a result. The message, which may be the server's, is for the model."""


class ParamsRefused(CallRefused):
    """The server has refused the parameters of the call (-32602), such as a state of its own that it has forgotten."""


class UnknownTask(ParamsRefused):
    """The server does not know a task, or no tasks at all (-32602, -32601)."""


class TaskLost(Exception):
    """The server does not know the task any longer. Whether the work took effect is unknown."""


class TaskCancelled(CallRefused):
    """The server has cancelled the task. The message, which may be the server's, says why."""


class LinksToOpen(CallRefused):
    """The user must open links before the call can run (-32042). `elicitations` are the server's requests."""

    def __init__(self, words: str, elicitations: list[ElicitRequestURLParams]) -> None:
        super().__init__(words)
        self.elicitations = elicitations


class SignInLink(LinksToOpen):
    """The user must sign in at the server before the call can run. The only link leads to this service."""


CALL_FAILURES = (ServerUnavailable, ServerBusy, ServerLost, AnswerTooLarge, CallRefused, TaskLost)
"""The failures of a call that the model hears of, as a tool error."""


def reason_of(error: BaseException, noted: Reason | None = None) -> Reason:
    """Returns the reason for the log. `noted` is what the transport has seen, for errors that do not say it."""
    errors = list(_leaves(error))
    gone = next((one for one in errors if isinstance(one, ServerGone)), None)
    match gone or errors[0]:
        case ServerGone() as gone:
            return Reason(str(gone), gone.kind)
        case MCPError() as refused if noted is None:
            own = refused.code in _OWN
            return Reason(refused.message if own else f"it answers with error code {refused.code}", ReasonKind.PROTOCOL)
        case TimeoutError():
            return noted or Reason("it does not answer", ReasonKind.SLOW)
        case other:
            return noted or Reason(why_away(other))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def line_for_log(words: str, secrets: list[str]) -> str:
    """Returns a server's words on one line, bounded, without `secrets`."""
    words = without_secrets(words, secrets)
    words = re.sub(r"[\s\x00-\x1f\x7f]+", " ", words).strip()
    return words[:MAX_WORDS]


def without_secrets(words: str, secrets: list[str]) -> str:
    for secret in sorted((secret for secret in secrets if len(secret) > 3), key=len, reverse=True):
        words = words.replace(secret, "[hidden]")
    return words

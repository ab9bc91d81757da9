"""The responses for calls that have failed."""

from __future__ import annotations

from backend.chat.protocol.tool_responses import ErrorResponse, ToolResponse
from executor.agent.calls import UNKNOWN_EFFECT
from executor.mcp.failures import (
    AnswerTooLarge,
    ServerBusy,
    ServerLost,
    ServerUnavailable,
    SignInLink,
    TaskCancelled,
    TaskLost,
    without_secrets,
)
from executor.mcp.messages import MAX_MESSAGE_BYTES
from executor.mcp.outputs import failed, too_large
from executor.mcp.server_entry import Server
from executor.tools.context import ToolContext


def masked(response: ToolResponse, server: Server) -> ToolResponse:
    """Returns the response, without the server's secrets in the words of an error."""
    if not isinstance(response, ErrorResponse):
        return response
    return response.model_copy(update={"message": without_secrets(response.message, server.secrets)})


def failure_response(
    failure: Exception, server: Server, block_id: str, context: ToolContext, *, repeatable: bool
) -> ToolResponse:
    """Returns the response for a failed call, which is one of CALL_FAILURES."""
    return masked(_failure(failure, server.name, block_id, context, repeatable=repeatable), server)


def _failure(
    failure: Exception, server: str, block_id: str, context: ToolContext, *, repeatable: bool
) -> ErrorResponse:
    session = context.session_id
    match failure:
        case ServerUnavailable():
            why = f" ({failure})" if str(failure) else ""
            message = f"The tool server {server} is not available now{why}. Go on without it, or try again later."
            return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
        case ServerBusy():
            message = f"The tool server {server} is busy with other calls. The call did not run; try again later."
            return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
        case ServerLost() if repeatable:
            message = f"The tool server {server} went away during the call. The call may be repeated."
            return ErrorResponse(message=message, session_id=session, error="tool_unavailable")
        case ServerLost():
            message = f"The tool server {server} went away during the call; whether it took effect is unknown."
            return ErrorResponse(message=message, session_id=session, error=UNKNOWN_EFFECT)
        case TaskLost():
            message = f"The tool server {server} has lost this work; whether it took effect is unknown."
            return ErrorResponse(message=message, session_id=session, error="task_lost")
        case TaskCancelled():
            return ErrorResponse(message=str(failure), session_id=session, error="task_cancelled")
        case SignInLink():
            return ErrorResponse(message=str(failure), session_id=session, error="tool_unavailable")
        case AnswerTooLarge():
            return too_large(block_id, f"more than {MAX_MESSAGE_BYTES} bytes", session)
        case _:
            return failed(str(failure), session)

"""Why an MCP server, or one call to it, gives no result."""

from __future__ import annotations

from mcp import MCPError

from backend.logs import why_away


class ServerGone(Exception):
    """A connection is over; the message says why, without anything of the server's."""


class ServerAway(Exception):
    """There is no connection, so the call was not sent."""


class ServerLost(Exception):
    """The connection ended while the call was under way: nobody knows whether it took effect."""


class CallRefused(Exception):
    """The server gave no result. The message is what it said, for the model."""


def why_gone(error: BaseException) -> str:
    """In a few words for the log, without text of the server's, its URL or its login."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case ServerGone():
            return str(error)
        case MCPError():
            return f"it answers with error {error.code}"
        case _:
            return why_away(error)

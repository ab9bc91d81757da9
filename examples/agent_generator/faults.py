"""Deliberate faults in answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from examples.agent_generator.directives import Behaviour


class Fault(Exception):
    """A deliberate fault: the request is answered with `response`."""

    def __init__(self, response: Response) -> None:
        self.response = response


def fault_of(behaviour: Behaviour, number: int) -> Fault | None:
    """Returns the fault of this attempt of a request, or None."""
    if behaviour.times is not None and number > behaviour.times:
        return None
    if behaviour.status is not None:
        headers = {"retry-after": behaviour.retry_after} if behaviour.retry_after else {}
        if 300 <= behaviour.status < 400:
            headers["location"] = "/health"
        body = {"success": False, "error": f"Status {behaviour.status}, as requested"}
        return Fault(JSONResponse(body, behaviour.status, headers))
    match behaviour.fault:
        case "malformed":
            return Fault(PlainTextResponse("<html>this is not JSON</html>"))
        case "huge":
            return Fault(JSONResponse({"success": True, "agent_json": {"filler": "x" * 3_000_000}}))
        case "drop":
            return Fault(StreamingResponse(_half(), headers={"content-length": "1000"}))
    return None


async def _half() -> AsyncIterator[bytes]:
    """Yields less than the promised length, so that uvicorn closes the connection."""
    yield b'{"success": true, '

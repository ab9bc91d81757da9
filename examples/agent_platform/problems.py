"""The errors that the API answers: `{"error": sentence, "code": code, "details"?: ...}`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Problem(Exception):
    """A request gets an error."""

    def __init__(self, status: int, code: str, sentence: str, details: Any = None, retry_after: int | None = None):
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence
        self.details = details
        self.retry_after = retry_after

    @property
    def response(self) -> Response:
        body: dict[str, Any] = {"error": self.sentence, "code": self.code}
        if self.details is not None:
            body["details"] = self.details
        headers = {"retry-after": str(self.retry_after)} if self.retry_after is not None else None
        return JSONResponse(body, self.status, headers)


def not_found(what: str) -> Problem:
    return Problem(404, "not_found", f"There is no such {what}.")


def invalid_request(sentence: str, details: Any = None) -> Problem:
    return Problem(400, "invalid_request", sentence, details)


def invalid_input(details: list[dict[str, str]]) -> Problem:
    fields = ", ".join(sorted({detail["field"] for detail in details}))
    return Problem(422, "invalid_input", f"These inputs are missing or not valid: {fields}."[:500], details)


def too_many(sentence: str, retry_after: int = 5) -> Problem:
    return Problem(429, "too_many", sentence, retry_after=retry_after)


async def answer_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response

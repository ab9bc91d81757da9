"""Errors as `application/problem+json`: the one handler, and what OpenAPI says about them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from backend.errors import (
    AppError,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
    Unavailable,
    UnknownField,
    ValidationFailed,
)
from backend.ids import SESSION_ID_PATTERN

PROBLEM_JSON = "application/problem+json"
_TYPE_PREFIX = "urn:copilot:problem:"
_MAX_LISTED = 10
logger = logging.getLogger(__name__)


class InvalidField(BaseModel):
    """Where a request does not fit, and why."""

    path: str
    message: str


class Problem(BaseModel):
    """An error. `code` is stable; `detail` is for people."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    task_id: str | None = None
    fields: list[InvalidField] | None = None


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM_JSON: {"schema": schema}}}
        for status in sorted(statuses)
    }


def problem_of(error: Exception) -> AppError:
    """What a caller may know about an exception."""
    if isinstance(error, AppError):
        return error
    if isinstance(error, RequestValidationError):
        return _validation_problem(error.errors())
    if isinstance(error, HTTPException):  # the router's own
        return MethodNotAllowed() if error.status_code == 405 else NotFound()
    if isinstance(error, RedisError):
        logger.warning("redis is away", extra={"why": repr(error)})
        return Unavailable()
    logger.error("request failed", exc_info=error)
    return AppError()


def _validation_problem(errors: Sequence[Any]) -> AppError:
    fields = [{"path": ".".join(map(str, error["loc"])), "message": _in_words(error)} for error in errors[:_MAX_LISTED]]
    unknown = all(error["type"] == "extra_forbidden" for error in errors)
    return (UnknownField if unknown else ValidationFailed)(fields=fields)


def _in_words(error: Any) -> str:
    """What is wrong with a field, where pydantic's words are those of Python or of regular expressions."""
    if error["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return "Input should be a JSON object"
    if error.get("ctx", {}).get("pattern") == SESSION_ID_PATTERN:
        return "The id of a session is 16 to 64 characters of A-Z a-z 0-9 _ -"
    return str(error["msg"])


def problem_response(error: Exception, request_id: str) -> Response:
    problem = problem_of(error)
    document = {
        **problem.extra,
        "type": _TYPE_PREFIX + problem.code,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": request_id,
    }
    headers = _headers(problem, error)
    return Response(orjson.dumps(document), problem.status, headers, PROBLEM_JSON)


def _headers(problem: AppError, error: Exception) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    if isinstance(problem, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    if problem.status in (408, 413):  # the body was not read to its end
        headers["connection"] = "close"
    given: Mapping[str, str] = getattr(error, "headers", None) or {}
    if "Allow" in given:
        headers["allow"] = given["Allow"]
    return headers

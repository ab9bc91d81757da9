"""Errors as `application/problem+json` (RFC 9457): their responses, and their description in OpenAPI."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from backend.chat.protocol.renderings.openai_chunks import error_json
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
from backend.logs import why_away

PROBLEM_JSON = "application/problem+json"
OPENAI_PATHS = "/v1/"
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_TYPE_PREFIX = "urn:copilot:problem:"
_MAX_LISTED = 10
logger = logging.getLogger(__name__)


class InvalidField(BaseModel):
    """A field of the request that is invalid."""

    path: str = Field(description="Where the field is, for example `body.message` or `query.limit`.")
    message: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """An error, as in RFC 9457. Programs should test `code`, which is stable; `detail` is a sentence for people.

    Some errors have more members, for example `checks` of a server that is not ready.
    """

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    task_id: str | None = Field(None, description="The task that is running, if `code` is `turn_in_progress`.")
    fields: list[InvalidField] | None = Field(None, description="The invalid fields (at most 10) of a request.")


def responses(*statuses: int, media_type: str = PROBLEM_JSON) -> dict[int | str, dict[str, Any]]:
    """Returns the `responses` argument of a route that may answer with these error statuses."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {media_type: {"schema": schema}}}
        for status in sorted(statuses)
    }


def problem_of(error: Exception) -> AppError:
    """Returns the error that the caller sees for an exception, without internal details. Logs unexpected exceptions."""
    if isinstance(error, AppError):
        return error
    if isinstance(error, RequestValidationError):
        return validation_problem(error.errors())
    if isinstance(error, HTTPException):  # raised by the router
        return MethodNotAllowed() if error.status_code == 405 else NotFound()
    if isinstance(error, RedisError):
        logger.warning("redis is unavailable", extra={"error": why_away(error)})
        return Unavailable()
    logger.error("request failed", exc_info=error)
    return AppError()


def validation_problem(errors: Sequence[Any]) -> AppError:
    """Returns the error for what pydantic says of a request. `errors` are in its form."""
    fields = [{"path": ".".join(map(str, error["loc"])), "message": _explain(error)} for error in errors[:_MAX_LISTED]]
    unknown = all(error["type"] == "extra_forbidden" for error in errors)
    return (UnknownField if unknown else ValidationFailed)(fields=fields)


def _explain(error: Any) -> str:
    """Returns pydantic's message, or a plainer one where pydantic speaks of Python types or regular expressions."""
    if error["type"] in ("model_attributes_type", "model_type", "dict_type"):
        return "Input should be a JSON object"
    if error.get("ctx", {}).get("pattern") == SESSION_ID_PATTERN:
        return "A session id has 16 to 64 characters of A-Z a-z 0-9 _ -"
    return str(error["msg"])


def error_response(error: Exception, request_id: str, path: str = "") -> Response:
    """Returns the response to a failed request. Under OPENAI_PATHS it also has the form of OpenAI's API."""
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
    given: Mapping[str, str] = getattr(error, "headers", None) or {}
    headers = error_headers(problem) | ({"allow": given["Allow"]} if "Allow" in given else {})
    if path.startswith(OPENAI_PATHS):
        return Response(orjson.dumps(document | openai_error(problem)), problem.status, headers, "application/json")
    return Response(orjson.dumps(document), problem.status, headers, PROBLEM_JSON)


def openai_error(problem: AppError) -> dict[str, Any]:
    """Returns an error as in OpenAI's API: clients show `message`, and test `code`."""
    kind = _OPENAI_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    fields = problem.extra.get("fields") or ()
    message = " ".join([problem.detail, *(f"{field['path']}: {field['message']}." for field in fields)])
    document: dict[str, Any] = error_json(message, problem.code, kind)
    return document


def error_headers(problem: AppError) -> dict[str, str]:
    """Returns the headers of an error's response."""
    headers = {"cache-control": "no-store"}
    if isinstance(problem, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    if problem.closes_connection or problem.status in (408, 413):
        headers["connection"] = "close"
    return headers

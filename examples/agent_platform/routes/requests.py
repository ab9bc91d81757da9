"""What the routes read from requests: the user, the key, and JSON bodies."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from examples.agent_platform.blocks.block import details_of
from examples.agent_platform.parts import Platform
from examples.agent_platform.problems import Problem, invalid_request

MAX_BODY = 1_200_000  # bytes; an agent has at most 1 MiB
MAX_USER, MAX_KEY, MAX_ID = 200, 255, 128
MAX_DEPTH = 100  # levels of lists and objects; orjson writes 254 at most, and outputs are wrapped in some more
Body = TypeVar("Body", bound=BaseModel)


def platform_of(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


def user_of(request: Request) -> str:
    """Returns the user for whom the request acts. Raises Problem: 400."""
    user = request.headers.get("x-user-id", "")
    if not 0 < len(user) <= MAX_USER:
        raise invalid_request(f"The header X-User-Id must have 1 to {MAX_USER} characters.")
    return user


def key_of(request: Request, header: str = "idempotency-key") -> str | None:
    """Returns the idempotency key. Raises Problem: 400."""
    key = request.headers.get(header)
    if key is not None and not 0 < len(key) <= MAX_KEY:
        raise invalid_request(f"An idempotency key has 1 to {MAX_KEY} characters.")
    return key


def graph_id_of(request: Request) -> str:
    """Returns the graph id of the path. Raises Problem: 400."""
    id: str = request.path_params["graph_id"]
    if len(id) > MAX_ID or not id.isprintable():
        raise invalid_request(f"A graph id is a printable text of at most {MAX_ID} characters.")
    return id


def version_of(request: Request) -> int:
    """Returns the version of the path. Raises Problem: 400."""
    version: int = request.path_params["version"]
    if not 0 < version < 2**31:
        raise invalid_request("A version is a number from 1 on.")
    return version


async def json_of(request: Request, *, most: int = MAX_BODY, empty: Any = None) -> Any:
    """Returns the JSON body; `empty` stands for no body. Raises Problem: 400, 413."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Problem(413, "too_large", f"The body is larger than {most} bytes.")
    if not body and empty is not None:
        return empty
    try:
        value = orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        raise invalid_request("The body is not JSON.") from None
    if _is_deeper(value, MAX_DEPTH):
        raise invalid_request(f"The body has more than {MAX_DEPTH} levels of lists and objects.")
    return value


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        inner = [one for one in level if isinstance(one, dict | list)]
        if not inner:
            return False
        level = [below for one in inner for below in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, dict | list) for one in level)


async def object_of(request: Request) -> dict[str, Any]:
    """Returns the JSON object of the body. Raises Problem: 400, 413."""
    value = await json_of(request)
    if not isinstance(value, dict):
        raise invalid_request("The body is not a JSON object.")
    return value


async def body_of(request: Request, type: type[Body]) -> Body:
    """Returns the body as that type. Raises Problem: 400, 413."""
    try:
        return type.model_validate(await object_of(request), strict=True)
    except ValidationError as error:
        details = details_of(error)
        fields = ", ".join(sorted({detail["field"] for detail in details}))
        raise invalid_request(f"These members are missing or not valid: {fields}."[:500], details) from None

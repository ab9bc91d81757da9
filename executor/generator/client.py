"""The client of the agent generator. A process has one."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import httpx2

from backend.chat.models import Json
from backend.config import Settings
from backend.errors import ConfigError
from backend.ids import OperationId, TaskId
from backend.json_client import strict_json
from backend.json_client.calls import CallLimits, open_json_client, webhook_is_closed
from executor.generator.answers import Goal, Pending, WorkAnswer, read_goal, read_made
from executor.generator.calls import Answer, answer_body, post
from executor.generator.failures import ErrorType, GeneratorFailure
from executor.generator.work import Work, encode

DECOMPOSE = "/api/decompose-description"
HEALTH_LIMIT = 5.0  # seconds
_HOST = re.compile(r"[\w.-]{1,253}")
_BASE = re.compile(r"https?://[^\s/?#]+[^\s?#]*")
_Read = TypeVar("_Read")
logger = logging.getLogger(__name__)


class Generator:
    """The client. `decompose` and `send` raise GeneratorFailure and take AGENTGENERATOR_TIMEOUT seconds at most."""

    def __init__(self, client: httpx2.AsyncClient, platform: str, limits: CallLimits) -> None:
        """`platform` is the base URL of this service, as the generator reaches it."""
        self._client = client
        self._platform = platform
        self._limits = limits

    async def decompose(
        self, description: str, user_instruction: str | None = None, library_agents: Sequence[Json] | None = None
    ) -> Goal:
        """Returns instructions for an agent that does what `description` says, or the reason why there are none."""
        request: dict[str, Json] = {"description": description}
        if user_instruction:
            request["user_instruction"] = user_instruction
        if library_agents:
            request["library_agents"] = list(library_agents)
        return await self._ask(DECOMPOSE, encode(request), {}, _goal_of)

    async def send(self, work: Work, operation_id: OperationId, task_id: TaskId) -> WorkAnswer:
        """Sends work to the generator and returns its answer.

        Sending the same work for the same operation and task again is safe: the operation's id is the idempotency key.
        After a failure, the generator may still do the work, and its outcome may still come.
        """
        content = work.for_operation(operation_id, task_id, self.callback_url(operation_id))
        return await self._ask(work.path, content, {"idempotency-key": operation_id}, _work_answer_of)

    def callback_url(self, operation_id: OperationId) -> str:
        """Returns the URL to which the generator posts the outcome of the operation."""
        return f"{self._platform}/api/chat/operations/{operation_id}/complete"

    async def healthy(self) -> bool:
        """Returns True if GET /health answers `healthy` within HEALTH_LIMIT. Never raises."""
        try:
            async with asyncio.timeout(HEALTH_LIMIT), self._client.stream("GET", "/health") as response:
                document = strict_json.load(await answer_body(response))
                status = document.get("status") if isinstance(document, dict) else None
                return response.status_code == 200 and status == "healthy"
        except (OSError, httpx2.HTTPError, anyio.EndOfStream, GeneratorFailure, ValueError):
            return False

    async def _ask(self, path: str, content: bytes, headers: dict[str, str], read: Callable[[Answer], _Read]) -> _Read:
        try:
            return read(await post(self._client, path, content, headers, self._limits))
        except GeneratorFailure as failure:
            logger.warning(
                "call to the generator failed",
                extra={"path": path, "error_type": failure.error_type, "error": failure.note},
            )
            raise


def _goal_of(answer: Answer) -> Goal:
    if answer.status != 200:
        raise GeneratorFailure(ErrorType.INVALID_RESPONSE, note=f"status {answer.status}")
    return read_goal(answer.body)


def _work_answer_of(answer: Answer) -> WorkAnswer:
    return Pending() if answer.status == 202 else read_made(answer.body)


@asynccontextmanager
async def open_client(settings: Settings, host: str, limits: CallLimits | None = None) -> AsyncIterator[Generator]:
    """Yields a client of the generator on `host`. Raises ConfigError if a setting is wrong."""
    if webhook_is_closed(settings):
        logger.warning(
            "outcomes by webhook will be refused: neither CHAT_INTERNAL_API_KEY nor CHAT_WEBHOOK_SECRET is set",
            extra={"generator": host},
        )
    limits = limits or CallLimits(total=settings.agentgenerator_timeout)
    base_url = _base_url(host, settings.agentgenerator_port)
    async with open_json_client(base_url, limits, settings.executor_concurrency) as client:
        yield Generator(client, _platform(settings.platform_base_url), limits)


def _base_url(host: str, port: int) -> httpx2.URL:
    if not 0 < port < 65_536:
        raise ConfigError("AGENTGENERATOR_PORT: must be a port between 1 and 65535")
    bare = host.strip("[]")
    try:
        known = ipaddress.IPv6Address(bare) if ":" in bare else _HOST.fullmatch(bare)
        url = httpx2.URL(scheme="http", host=bare, port=port) if known else None
    except (ValueError, httpx2.InvalidURL):
        url = None
    if url is None:
        raise ConfigError("AGENTGENERATOR_HOST: must be a host name or an IP address, without scheme, port or path")
    return url


def _platform(url: str) -> str:
    if _BASE.fullmatch(url) is None:
        raise ConfigError("PLATFORM_BASE_URL: must be an http or https URL without query and fragment")
    return url.rstrip("/")

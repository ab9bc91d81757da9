"""The client of the agent platform. A process has one."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TypeVar
from urllib.parse import quote

import httpx2
import orjson

from backend.chat.models import Json
from backend.config import Settings
from backend.ids import OperationId, TaskId, UserId
from backend.json_client.calls import CallLimits, open_json_client, webhook_is_closed
from backend.platform import answers
from backend.platform.answers import Block, Graph, Run, Schedule
from backend.platform.failures import Failure, PlatformFailure
from backend.platform.requests import Request, send

BLOCKS_KEPT = 600.0
"""Seconds for which the list of blocks is kept."""
CALLS = (
    "blocks", "run_block", "put_graph", "execute", "results", "executions", "cancel", "make_schedule", "schedules",
    "pause_schedule", "delete_schedule", "delete_graph", "delete_user",
)  # fmt: skip
"""The names under which calls are counted."""
MAX_USER_CHARS = 200
_USER = re.compile(rf"(?!sha256-)[!-~]{{1,{MAX_USER_CHARS}}}")
_Read = TypeVar("_Read")
logger = logging.getLogger(__name__)


class Platform:
    """The client. All methods raise PlatformFailure, and take PLATFORM_TIMEOUT seconds at most.

    Calls that begin something have a `key`: the same call with the same key is carried out once, so it may be repeated.
    """

    def __init__(self, client: httpx2.AsyncClient, callback_base: str, limits: CallLimits) -> None:
        """`callback_base` is the base URL of this service, as the platform reaches it."""
        self._client = client
        self._callback_base = callback_base
        self._limits = limits
        self.calls = CALLS
        self.limit = limits.total
        """Seconds that a call may take."""
        self._count: Callable[[str, str], None] = lambda call, outcome: None
        self._blocks: tuple[Block, ...] = ()
        self._blocks_until = 0.0
        self._listing = asyncio.Lock()
        self.why_away: str | None = None
        """The reason why the last call did not reach the platform; None if it did."""

    def report_to(self, count: Callable[[str, str], None]) -> None:
        """Has each call counted, with its name and how it ended: `ok`, or the code of its failure."""
        self._count = count

    def callback_url(self, operation_id: OperationId) -> str:
        """Returns the URL to which the platform posts the outcome of a run."""
        return f"{self._callback_base}/api/chat/operations/{operation_id}/complete"

    async def blocks(self) -> tuple[Block, ...]:
        """Returns all blocks. The list is kept for BLOCKS_KEPT seconds."""
        clock = asyncio.get_running_loop().time
        async with self._listing:
            if clock() >= self._blocks_until:
                self._blocks = await self._ask("blocks", Request("GET", "blocks", {}), answers.read_blocks)
                self._blocks_until = clock() + BLOCKS_KEPT
            return self._blocks

    async def run_block(self, user_id: UserId, block_id: str, inputs: Json, key: str) -> dict[str, Json]:
        """Runs a block and returns its outputs, a list of values for each name."""
        path = f"blocks/{_quoted(block_id)}/execute"
        request = Request("POST", path, _of(user_id, key), _encode(inputs))
        return await self._ask("run_block", request, answers.read_block_output)

    async def put_graph(self, user_id: UserId, graph_id: str, version: int, document: Json) -> Graph:
        """Gives the platform a version of an agent. It may have it already."""
        path = f"graphs/{_quoted(graph_id)}/versions/{version}"
        return await self._ask("put_graph", Request("PUT", path, _of(user_id), _encode(document)), answers.read_graph)

    async def execute(
        self, user_id: UserId, graph_id: str, version: int, inputs: Json, operation: tuple[OperationId, TaskId], *,
        call_back: bool,
    ) -> str:  # fmt: skip
        """Begins a run and returns its id. The operation's id is its key.

        With `call_back` the platform posts how it ended.
        """
        operation_id, task_id = operation
        body = {"node_input": inputs, "operation_id": operation_id, "task_id": task_id}
        if call_back:
            body["callback_url"] = self.callback_url(operation_id)
        path = f"graphs/{_quoted(graph_id)}/execute/{version}"
        request = Request("POST", path, _of(user_id, operation_id), _encode(body))
        return await self._ask("execute", request, answers.read_run_id)

    async def begin(self, user_id: UserId, graph_id: str, version: int, inputs: Json, key: str) -> str:
        """Begins a run that belongs to no operation and returns its id. Nothing is posted when it ends."""
        path = f"graphs/{_quoted(graph_id)}/execute/{version}"
        request = Request("POST", path, _of(user_id, key), _encode({"node_input": inputs}))
        return await self._ask("execute", request, answers.read_run_id)

    async def run(self, user_id: UserId, graph_id: str, run_id: str) -> Run:
        """Returns the state of a run with its nodes."""
        path = f"graphs/{_quoted(graph_id)}/executions/{_quoted(run_id)}/results"
        return await self._ask("results", Request("GET", path, _of(user_id)), answers.read_run)

    async def runs(self, user_id: UserId, graph_id: str, limit: int = 20) -> tuple[Run, ...]:
        """Returns the newest runs of an agent, without their nodes, and perhaps without large outputs.

        They are fewer than `limit` if so many outputs are too large for one answer.
        """
        path = f"graphs/{_quoted(graph_id)}/executions?limit={limit}"
        try:
            return await self._ask("executions", Request("GET", path, _of(user_id)), answers.read_runs)
        except PlatformFailure as failure:
            if failure.failure is not Failure.OUTPUT_TOO_LARGE or limit == 1:
                raise
        return await self.runs(user_id, graph_id, limit // 2)

    async def cancel(self, user_id: UserId, graph_id: str, run_id: str) -> Run:
        """Stops a run. Returns its state; a run that had ended before stays as it was."""
        path = f"graphs/{_quoted(graph_id)}/executions/{_quoted(run_id)}/cancel"
        return await self._ask("cancel", Request("POST", path, _of(user_id), b"{}"), answers.read_run)

    async def make_schedule(self, user_id: UserId, graph_id: str, body: Json, key: str) -> Schedule:
        """Makes a schedule. `body` has version, name, cron, timezone and node_input."""
        path = f"graphs/{_quoted(graph_id)}/schedules"
        request = Request("POST", path, _of(user_id, key), _encode(body))
        return await self._ask("make_schedule", request, answers.read_schedule)

    async def schedules(self, user_id: UserId, graph_id: str | None = None) -> tuple[Schedule, ...]:
        """Returns the user's schedules, or those of one agent."""
        path = "schedules" if graph_id is None else f"schedules?graph_id={_quoted(graph_id)}"
        return await self._ask("schedules", Request("GET", path, _of(user_id)), answers.read_schedules)

    async def pause_schedule(self, user_id: UserId, schedule_id: str, *, paused: bool) -> Schedule:
        request = Request("PATCH", f"schedules/{_quoted(schedule_id)}", _of(user_id), _encode({"paused": paused}))
        return await self._ask("pause_schedule", request, answers.read_schedule)

    async def delete_schedule(self, user_id: UserId, schedule_id: str) -> None:
        request = Request("DELETE", f"schedules/{_quoted(schedule_id)}", _of(user_id))
        await self._ask("delete_schedule", request, lambda document: None)

    async def delete_graph(self, user_id: UserId, graph_id: str) -> bool:
        """Deletes all versions of an agent with its schedules and runs. It need not be known there.

        Returns False if the platform has no such request (405, 501). Then only the schedules are deleted, if it can.
        """
        return await self._delete("delete_graph", f"graphs/{_quoted(graph_id)}", user_id, graph_id)

    async def delete_user(self, user_id: UserId) -> bool:
        """Deletes everything of a user, who need not be known there. Returns False as `delete_graph` does."""
        return await self._delete("delete_user", "user", user_id)

    async def _delete(self, call: str, path: str, user_id: UserId, graph_id: str | None = None) -> bool:
        try:
            await self._ask(call, Request("DELETE", path, _of(user_id)), lambda document: None)
        except PlatformFailure as failure:
            if failure.failure is Failure.NOT_FOUND:
                return True
            if failure.failure is not Failure.UNSUPPORTED:
                raise
        else:
            return True
        logger.warning("the agent platform cannot delete this; only schedules are deleted there", extra={"call": call})
        await self._delete_schedules(user_id, graph_id)
        return False

    async def _delete_schedules(self, user_id: UserId, graph_id: str | None) -> None:
        """Deletes the schedules, because each would go on. A platform that has no such requests has no schedules."""
        try:
            found = await self.schedules(user_id, graph_id)
        except PlatformFailure as failure:
            if failure.failure in (Failure.NOT_FOUND, Failure.UNSUPPORTED):
                return
            raise
        for schedule in found:
            if graph_id in (None, schedule.graph_id):
                try:
                    await self.delete_schedule(user_id, schedule.id)
                except PlatformFailure as failure:
                    if failure.failure not in (Failure.NOT_FOUND, Failure.UNSUPPORTED):
                        raise

    async def _ask(self, call: str, request: Request, read: Callable[[Json], _Read]) -> _Read:
        try:
            found = read(await send(self._client, request, self._limits))
        except PlatformFailure as failure:
            self._count(call, failure.failure.value)
            self.why_away = failure.note if failure.failure in (Failure.UNAVAILABLE, Failure.TIMEOUT) else None
            about = {"call": call, "code": failure.failure.value, "error": failure.note}
            logger.warning("call to the agent platform failed", extra=about)
            raise
        self._count(call, "ok")
        self.why_away = None
        return found


def user_name(user_id: UserId) -> str:
    """Returns the user's id as the platform gets it: a hash, if a header cannot have it, or if it looks like one."""
    if _USER.fullmatch(user_id) is not None:
        return user_id
    return f"sha256-{sha256(user_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _of(user_id: UserId, key: str | None = None) -> dict[str, str]:
    headers = {"x-user-id": user_name(user_id)}
    return headers if key is None else {**headers, "idempotency-key": key}


def _quoted(id: str) -> str:
    return quote(id, safe="") if id not in (".", "..") else "-"


def _encode(document: Json) -> bytes:
    """Returns JSON. Raises PlatformFailure for a lone surrogate, a very large number or too deep nesting."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        raise PlatformFailure(Failure.INVALID_REQUEST, note="not JSON") from None


@asynccontextmanager
async def open_client(settings: Settings, url: str, most_seconds: float) -> AsyncIterator[Platform]:
    """Yields a client of the platform at `url`. A call takes `most_seconds` at most, and PLATFORM_TIMEOUT."""
    if webhook_is_closed(settings):
        logger.warning(
            "outcomes by webhook will be refused: neither CHAT_INTERNAL_API_KEY nor CHAT_WEBHOOK_SECRET is set",
            extra={"platform": "PLATFORM_URL"},
        )
    key = settings.platform_api_key
    headers = None if key is None else {"x-api-key": key.get_secret_value()}
    total = min(settings.platform_timeout, most_seconds)
    limits = CallLimits(total=total, tries=3, connect=min(5, total / 2), longest_wait=10)
    async with open_json_client(url.rstrip("/") + "/", limits, settings.executor_concurrency, headers) as client:
        yield Platform(client, settings.platform_base_url.rstrip("/"), limits)

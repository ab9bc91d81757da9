"""One connection to an MCP server, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import copy_context
from pathlib import Path
from typing import Any, Literal

import mcp_types
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.shared.dispatcher import ProgressFnT
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from executor.mcp.call_results import words_of
from executor.mcp.failures import (
    AnswerTooLarge,
    CallRefused,
    LastFailure,
    LinksToOpen,
    ParamsRefused,
    Reason,
    ReasonKind,
    ServerBusy,
    ServerGone,
    ServerLost,
    ServerUnavailable,
    SessionLost,
    UnknownTask,
    reason_of,
)
from executor.mcp.http import reach_server
from executor.mcp.inputs import listed_roots
from executor.mcp.live_call import CALL, LendSlot, LiveCall, LiveCalls
from executor.mcp.messages import ClientErrorCode
from executor.mcp.oauth.challenge import Challenge, SignInNeeded
from executor.mcp.oauth.transport import Bearer
from executor.mcp.server_entry import Server, StdioServer
from executor.mcp.stdio import run_program
from executor.mcp.tasks import CALLED, Answered, TasksExtension
from executor.mcp.tool import Caller

CHECK_PAUSE = 0.2
"""The shortest pause in seconds between two checks of the list of tools."""
MAX_PAGES, MAX_TOOLS = 50, 1_000
"""Pages that are read of a server's list of tools, and tools that are taken from it."""
CLIENT_INFO = mcp_types.Implementation(name="copilot-chat", version="1")
URL_ELICITATION = -32042
WHOSE = "It is unclear which of several calls asks for this. Ask within the answer to the call."
Mode = Literal["auto", "legacy"]
Check = tuple[float, float]
"""Seconds between two checks of the list of tools, and seconds for its answer."""
Listed = Callable[[list[mcp_types.Tool], bool], None]
"""Takes a list of tools. False if those that demand a task cannot be called."""
logger = logging.getLogger(__name__)


class Link:
    """A connection. One job must run `run`, since the SDK's contexts must be left by the job that entered them.

    `up` is set when the tools are known, `down` when no new call may use it; calls under way go on after that. `why`
    says why it went down. A program works in `folder`. `listed` is called with each list of tools, which is checked
    every `check_every` seconds.
    """

    def __init__(
        self,
        server: Server,
        folder: Path,
        mode: Mode,
        call_limit: float,
        check: Check,
        listed: Listed,
        bearer: Bearer | None,
        headers: Mapping[str, str],
    ) -> None:
        self.server = server
        self.up, self.down = asyncio.Event(), asyncio.Event()
        self.why: Reason | None = None
        self.exited_early = False
        self.call_ended_at = 0.0
        """The time of the end of the last call, on the monotonic clock."""
        self._heard_at = 0.0
        self._folder = folder
        self._mode = mode
        self._call_limit = call_limit
        self._longest_call = call_limit + server.wait
        self._check_every, self._check_timeout = check
        self._closed = False
        self._listed = listed
        self._last_failure = LastFailure()
        self._bearer, self._headers = bearer, headers
        self._client: Client | None = None
        self._check_now, self._leaving = asyncio.Event(), asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._live = LiveCalls()

    @property
    def usable(self) -> bool:
        return self.up.is_set() and not self.down.is_set() and not self._closed

    @property
    def is_busy(self) -> bool:
        """Returns True if calls are under way, or the connection is still being made."""
        return bool(self._calls) or not (self.up.is_set() or self.down.is_set())

    async def settled(self) -> None:
        """Waits until the connection is up or has failed."""
        await _first_of(self.up, self.down, None)

    @property
    def challenge(self) -> Challenge | None:
        """The sign-in that the server wants, if that is why the connection failed."""
        wanted = self._bearer is not None and self.why is not None and self.why.kind is ReasonKind.UNAUTHORIZED
        return Challenge.from_json(self._last_failure.challenge) if wanted else None

    @property
    def instructions(self) -> str | None:
        return self._client.instructions if self._client is not None else None

    @property
    def protocol(self) -> str | None:
        return self._client.protocol_version if self._client is not None else None

    def retire(self) -> None:
        """Takes no more calls. Ends when those under way have ended."""
        self.down.set()
        self._leaving.set()

    async def run(self, start_timeout: float) -> None:
        """Connects and stays connected until the connection fails or is retired."""
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(start_timeout):
                    self._client = await stack.enter_async_context(self._new_client())
                    self._listed(await self._list(self._client), self._runs_tasks)
                self._heard_at = time.monotonic()
                self.up.set()
                await self._check(self._client)
                self.down.set()
                await self._end_calls()
        except Exception as error:  # noqa: BLE001 - boundary to external servers: any failure is reported as a reason
            self._fail(error)
        finally:
            self.down.set()

    async def call(self, tool: str, arguments: dict[str, Any], caller: Caller, lent: LendSlot) -> Answered:
        """Calls a tool. Returns its result or error, its questions to the user, or the task that the call has become.

        Cancelling it notifies the server but does not wait for it. Raises the failures of a call.
        """
        ttl = caller.task_ttl if self._makes_tasks else None
        params = mcp_types.CallToolRequestParams(
            name=tool,
            arguments=arguments,
            input_responses=None if caller.answers.responses is None else dict(caller.answers.responses),
            request_state=caller.answers.state,
            task=None if ttl is None else mcp_types.TaskMetadata(ttl=ttl),
        )
        if caller.inputs is not None:
            caller.inputs.roots = self._roots
        live = None if caller.inputs is None else LiveCall(caller.session, caller.inputs, lent)
        answer: Answered = await self.ask(mcp_types.CallToolRequest(params=params), CALLED, caller.progress, live)
        return answer

    @property
    def _makes_tasks(self) -> bool:
        """Returns True if calls can ask to become tasks, which the protocol has in 2025-11-25 alone."""
        told = None if self._client is None else self._client.server_capabilities.tasks
        return told is not None and told.requests is not None and told.requests.tools is not None

    @property
    def _runs_tasks(self) -> bool:
        """Returns True if tools that demand a task can be called. Since 2026-07-28 no tool demands one."""
        return self._makes_tasks or self.protocol in MODERN_PROTOCOL_VERSIONS

    async def read(self, uri: str) -> mcp_types.ReadResourceResult:
        """Reads a resource. Raises the failures of a call."""
        params = mcp_types.ReadResourceRequestParams(uri=uri)
        result: mcp_types.ReadResourceResult = await self.ask(
            mcp_types.ReadResourceRequest(params=params), TypeAdapter(mcp_types.ReadResourceResult), None
        )
        return result

    async def ask(
        self, request: Any, kind: TypeAdapter[Any], progress: Any | None = None, live: LiveCall | None = None
    ) -> Any:
        """Sends a request without the SDK's `call_tool`, which validates the output against the server's schema.

        That takes seconds for a long output and would block all turns of this process.
        """
        if self._client is None or not self.usable:
            raise ServerUnavailable
        told = None if progress is None else self._heard(progress)
        context = copy_context()
        context.run(CALL.set, live)
        sending = self._client.session.send_request(request, kind, progress_callback=told)
        job = asyncio.create_task(sending, context=context)
        self._calls.add(job)
        job.add_done_callback(self._call_ended)
        if live is not None:
            self._live.add(live)
        try:
            await asyncio.wait({job})
        finally:
            job.cancel()
            if live is not None:
                self._live.end(live)
        return _outcome(job, request)

    def _call_ended(self, job: asyncio.Task[Any]) -> None:
        self._calls.discard(job)
        self.call_ended_at = time.monotonic()
        if job.cancelled():
            return
        if (error := job.exception()) is None or not _is_silence(error):
            self._heard_at = self.call_ended_at
        if error is not None:
            self._check_now.set()
            closed = isinstance(error, MCPError) and error.code == mcp_types.CONNECTION_CLOSED
            self._closed = self._closed or (closed and isinstance(self.server, StdioServer))

    def _heard(self, report: ProgressFnT) -> ProgressFnT:
        """Returns `report`, which also notes that the server has said something."""

        async def told(progress: float, total: float | None, message: str | None) -> None:
            self._heard_at = time.monotonic()
            await report(progress, total, message)

        return told

    def _fail(self, error: BaseException) -> None:
        self.why = reason_of(error, self._last_failure.why)
        self.exited_early = not self.up.is_set() and self.why.kind is ReasonKind.EXITED

    def _new_client(self) -> Client:
        if isinstance(self.server, StdioServer):
            transport = run_program(self.server, self._folder, self._last_failure)
        else:
            transport = reach_server(self.server, self._longest_call, self._last_failure, self._bearer, self._headers)
        return Client(
            transport,
            client_info=CLIENT_INFO,
            message_handler=self._on_message,
            cache=None,
            extensions=[TasksExtension()],
            mode=self._mode,
            elicitation_callback=self._elicit if self.server.wait else None,
            sampling_callback=self._sample if self.server.sampling is not None else None,
            list_roots_callback=self._list_roots if self._roots else None,
        )

    @property
    def _roots(self) -> list[Path]:
        return self.server.roots_in(self._folder) if isinstance(self.server, StdioServer) else []

    async def _list_roots(self, context: ClientRequestContext) -> mcp_types.ListRootsResult:
        return listed_roots(self._roots)

    async def _sample(
        self, context: ClientRequestContext, params: mcp_types.CreateMessageRequestParams
    ) -> mcp_types.CreateMessageResult | mcp_types.ErrorData:
        call = self._live.asking()
        if call is None:
            return mcp_types.ErrorData(code=mcp_types.INVALID_REQUEST, message=WHOSE)
        over = mcp_types.ErrorData(
            code=mcp_types.INVALID_REQUEST, message="The call has ended, or has too many open requests."
        )
        answer: mcp_types.CreateMessageResult | mcp_types.ErrorData = await call.answer(
            call.inputs.sample(params), over
        )
        self._heard_at = time.monotonic()
        return answer

    async def _elicit(
        self, context: ClientRequestContext, params: mcp_types.ElicitRequestParams
    ) -> mcp_types.ElicitResult | mcp_types.ErrorData:
        call = self._live.asking()
        if call is None:
            logger.warning("a question of an MCP server belongs to no call", extra={"server": self.server.name})
            return mcp_types.ErrorData(code=mcp_types.INVALID_REQUEST, message=WHOSE)
        cancelled = mcp_types.ElicitResult(action="cancel")
        answer: mcp_types.ElicitResult | mcp_types.ErrorData = await call.answer(call.inputs.elicit(params), cancelled)
        self._heard_at = time.monotonic()  # the silence before was no fault: the server waited
        return answer

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._check_now.set()
        elif isinstance(message, mcp_types.ElicitCompleteNotification):
            self._live.completed(message.params.elicitation_id)

    async def _check(self, client: Client) -> None:
        """Reads the tools regularly, after they changed, and after a call failed.

        Returns when the connection is retired, or when the server cannot be reached although the connection of a call
        under way may still be good. Raises if the connection is lost.
        """
        while not self._leaving.is_set():
            await _first_of(self._check_now, self._leaving, self._check_every)
            if self._leaving.is_set():
                return
            self._check_now.clear()
            try:
                async with asyncio.timeout(self._check_timeout):
                    self._listed(await self._list(client), self._runs_tasks)
                self._heard_at = time.monotonic()
            except TimeoutError:
                if self._is_silent():
                    raise ServerGone("it does not answer", ReasonKind.SLOW) from None
            except MCPError as error:
                limited = error.code == ClientErrorCode.REFUSED and error.data == 429
                more = error.code == ClientErrorCode.SIGN_IN and Challenge.from_json(error.data).more
                if not limited and not more:
                    self._fail(error)
                    return
            await asyncio.sleep(CHECK_PAUSE)  # no shorter, even if the server notifies often

    def _is_silent(self) -> bool:
        """Returns True if a server that has not answered a check counts as hanging. A server that does one thing at a
        time cannot answer during a call, but ends each call within the call's limit. While it waits for the user, it
        may be silent for longer.
        """
        silent = time.monotonic() - self._heard_at
        return not self._calls or (not self._live.wait and silent > self._call_limit + self._check_timeout)

    async def _end_calls(self) -> None:
        """Waits for the calls under way, as long as one may take."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=self._longest_call)

    async def _list(self, client: Client) -> list[mcp_types.Tool]:
        listed: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES if client.server_capabilities.tools is not None else 0):
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if cursor is None or len(listed) >= MAX_TOOLS:
                break
        if cursor is not None or len(listed) > MAX_TOOLS:
            logger.warning(
                "tools of an MCP server are left out", extra={"server": self.server.name, "error": f"over {MAX_TOOLS}"}
            )
        return listed[:MAX_TOOLS]


async def _first_of(one: asyncio.Event, other: asyncio.Event, seconds: float | None) -> None:
    """Waits until one of two events is set, or the time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for job in waiting:
            job.cancel()


def _is_silence(error: BaseException) -> bool:
    """Returns True if an error says that the server sent no answer at all."""
    return isinstance(error, MCPError) and error.code in (
        ClientErrorCode.NOT_SENT,
        ClientErrorCode.LOST,
        mcp_types.CONNECTION_CLOSED,
    )


def _outcome(job: asyncio.Task[Any], request: Any) -> Any:
    if job.cancelled():
        raise ServerLost
    try:
        return job.result()
    except MCPError as error:
        match error.code:
            case ClientErrorCode.NOT_SENT | ClientErrorCode.REFUSED:
                raise ServerUnavailable(error.message) from None
            case ClientErrorCode.SIGN_IN:
                raise SignInNeeded(Challenge.from_json(error.data)) from None
            case ClientErrorCode.LOST | mcp_types.CONNECTION_CLOSED:
                raise ServerLost from None
            case ClientErrorCode.SESSION_LOST:
                raise SessionLost from None
            case ClientErrorCode.TOO_LARGE:
                raise AnswerTooLarge from None
            case ClientErrorCode.INVALID_ANSWER:
                raise CallRefused(f"The tool server's answer cannot be used: {error.message}.") from None
        if request.method.startswith("tasks/") and error.code in (mcp_types.INVALID_PARAMS, mcp_types.METHOD_NOT_FOUND):
            raise UnknownTask(error.message) from None
        if request.method == "tasks/get" and error.code == mcp_types.INTERNAL_ERROR:
            raise ServerBusy from None  # a failed task has another error, so this one says nothing about it
        raise _refused(error) from None
    except ValidationError:
        raise CallRefused("The server's answer is not a valid tool result.") from None


def words_of_error(error: MCPError) -> str:
    """Returns the message of an error, and what its data says beside that."""
    said = error.message or "The server answered with an error."
    more = "" if error.data is None else words_of(error.data).strip()
    return said if not more or more in said else f"{said}: {more}"


def _refused(error: MCPError) -> CallRefused:
    """Returns the refusal in the server's words, with the links that it asks the user to open."""
    if error.code == mcp_types.INVALID_PARAMS:
        return ParamsRefused(words_of_error(error))
    data = error.data if isinstance(error.data, dict) and error.code == URL_ELICITATION else {}
    given = data.get("elicitations")
    asked = [one for one in given if isinstance(one, dict) and "url" in one] if isinstance(given, list) else []
    words = "\n".join(
        [
            error.message if asked else words_of_error(error),
            *(f"{one.get('message', '')} {one['url']}".strip() for one in asked),
        ]
    )
    try:
        elicitations = [mcp_types.ElicitRequestURLParams.model_validate(one) for one in asked]
    except ValidationError:
        elicitations = []
    return LinksToOpen(words, elicitations) if elicitations else CallRefused(words)

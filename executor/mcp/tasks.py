"""Tasks of the protocol: calls that a server carries out by itself, and that this client asks for until they end.

In 2025-11-25 a call asks to become a task (`execution.taskSupport` of its tool), and `tasks/result` has the result. In
the extension `io.modelcontextprotocol/tasks` of 2026-07-28 the server decides, and `tasks/get` has the result too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, ClassVar, Literal, Protocol

import mcp_types
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from backend.chat.outcomes import RemoteTask
from executor.mcp.call_results import repair_result
from executor.mcp.failures import (
    AnswerTooLarge,
    CallRefused,
    ServerBusy,
    ServerLost,
    ServerUnavailable,
    TaskCancelled,
    TaskLost,
    UnknownTask,
    without_secrets,
)
from executor.mcp.inputs import MAX_QUESTIONS, Inputs, ServerRequests
from executor.mcp.live_call import LiveCall
from executor.mcp.server_entry import Server, StdioServer

EXTENSION = "io.modelcontextprotocol/tasks"
DEFAULT_PAUSE, LEAST_PAUSE, LONGEST_PAUSE = 5.0, 1.0, 60.0
"""Seconds between two polls of a task if the server names none, and the bounds of what it names."""
LOOK_LIMIT, CANCEL_LIMIT = 30.0, 10.0
"""Seconds that a server has to tell about a task, and to take a cancel."""
MAX_WAITING = 1_000
"""Tasks whose answered requests are remembered; the oldest of more may ask again."""
MAX_KEY = 1_024
"""Characters of a server's name for a request."""
MAX_CANCELS = 64
"""Cancels on their way to a server. A further one is left out, and its task ends by itself."""
_ENDED = frozenset({"completed", "failed", "cancelled"})
logger = logging.getLogger(__name__)


class TaskState(BaseModel):
    """A task as the server tells it, in either generation of the protocol. `poll_ms` is in milliseconds."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(alias="taskId", min_length=1, max_length=1_024)
    status: str
    message: Any = Field(None, alias="statusMessage")
    poll_ms: Any = Field(None, alias="pollIntervalMs")
    requests: dict[str, Any] | None = Field(None, alias="inputRequests")
    result: dict[str, Any] | None = None
    error: Any = None

    @model_validator(mode="before")
    @classmethod
    def _of_either_generation(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        told = given["task"] if isinstance(given.get("task"), dict) else given
        return {**told, "pollIntervalMs": told.get("pollIntervalMs", told.get("pollInterval"))}

    @property
    def words(self) -> str | None:
        """What the server says about it."""
        return self.message if isinstance(self.message, str) and self.message.strip() else None

    @property
    def pause(self) -> float:
        """Seconds until the next poll, as the server wants it, within bounds."""
        if not isinstance(self.poll_ms, int | float) or not self.poll_ms > 0:
            return DEFAULT_PAUSE
        return max(min(self.poll_ms, 1000 * LONGEST_PAUSE) / 1000, LEAST_PAUSE)  # a JSON number may exceed any float

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED

    @property
    def is_waiting(self) -> bool:
        """Returns True if the server needs something before it goes on."""
        return self.status == "input_required"


def _kind_of(answer: Any) -> str:
    if isinstance(answer, TaskState):
        return "task"
    if isinstance(answer, dict) and (answer.get("resultType") == "task" or isinstance(answer.get("task"), dict)):
        return "task"
    return "result"


Answered = mcp_types.CallToolResult | mcp_types.InputRequiredResult | TaskState
CALLED: TypeAdapter[Answered] = TypeAdapter(
    Annotated[
        Annotated[mcp_types.CallToolResult | mcp_types.InputRequiredResult, Tag("result")]
        | Annotated[TaskState, Tag("task")],
        Discriminator(_kind_of),
    ]
)
"""Parses the answer to a call."""
_STATE: TypeAdapter[TaskState] = TypeAdapter(TaskState)
_RESULT: TypeAdapter[mcp_types.CallToolResult] = TypeAdapter(mcp_types.CallToolResult)
_ANYTHING: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class _Params(mcp_types.RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class _Request(mcp_types.Request[_Params, str]):
    name_param: ClassVar[str] = "taskId"
    """The header `Mcp-Name` must have it in 2026-07-28, so that gateways find the server's process."""
    params: _Params


class _Created(mcp_types.Result):
    result_type: Literal["task"] = Field("task", alias="resultType")


class TasksExtension(ClientExtension):
    """Tells servers of 2026-07-28 that calls may become tasks. Older ones are told nothing."""

    identifier = EXTENSION

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return (ResultClaim(result_type="task", model=_Created, resolve=self._resolve),)

    async def _resolve(self, created: _Created, context: ClaimContext) -> mcp_types.CallToolResult:
        raise NotImplementedError("the links parse answers themselves")


class TaskConnection(Protocol):
    """A connection to a server (`executor.mcp.link.Link`)."""

    async def ask(
        self, request: Any, kind: TypeAdapter[Any], progress: Any | None = None, live: LiveCall | None = None
    ) -> Any: ...


Ask = Callable[[str | None, Callable[[TaskConnection], Awaitable[Any]]], Awaitable[Any]]
"""Runs a request with the connection of a session or user, or with the one that all share (None)."""


class ServerTasks:
    """The tasks of one server. What it is asked about them needs no place, since its answers are short.

    A program's tasks end with it: they are lost as soon as it does not answer.
    """

    def __init__(self, server: Server, ask: Ask) -> None:
        self.server = server
        self._ask = ask
        self._cancels: set[asyncio.Task[None]] = set()
        self._answered: OrderedDict[RemoteTask, set[str]] = OrderedDict()

    async def look(self, task: RemoteTask) -> TaskState | mcp_types.CallToolResult:
        """Returns the state of a task, or its result once that is there.

        Raises TaskLost, TaskCancelled, CallRefused if the call failed, AnswerTooLarge, and the failures of a call if
        nothing is known.
        """
        try:
            state: TaskState = await self._of_task(task, "tasks/get", _STATE)
        except (CallRefused, AnswerTooLarge):  # nobody asks for the result, so the work would be wasted
            self.abandon(task)
            raise
        if state.has_ended:
            self._answered.pop(task, None)
        match state.status:
            case "completed" | "failed" if state.result is not None:
                repair_result(state.result)
                try:
                    return _RESULT.validate_python(state.result, by_name=False)
                except ValidationError:
                    raise CallRefused("The server's answer is not a valid tool result.") from None
            case "failed" if state.error is not None:
                raise CallRefused(_words_of(state))
            case "completed" | "failed":
                return await self._result_of(task)
            case "cancelled":
                raise TaskCancelled(state.words or "The tool server has cancelled the work.")
        if state.words is not None:
            state = state.model_copy(update={"message": without_secrets(state.words, self.server.secrets)})
        return self._without_answered(task, state)

    def _without_answered(self, task: RemoteTask, state: TaskState) -> TaskState:
        """Returns the state without requests that were answered: a server may show them for a while after that."""
        if state.requests is None or (answered := self._answered.get(task)) is None:
            return state
        left = {key: one for key, one in state.requests.items() if key not in answered}
        return state.model_copy(update={"requests": left, "status": state.status if left else "working"})

    async def answer(self, task: RemoteTask, state: TaskState, inputs: Inputs) -> mcp_types.CallToolResult | None:
        """Has the user answer what a task waits for, without limit. Returns the task's result if it ends meanwhile.

        Raises CallRefused if it asks for something that it does not get, and as `look` does.
        """
        if state.requests is None:  # 2025-11-25: the server asks while this request waits
            return await self._result_of(task, LiveCall(inputs.context.session_id, inputs, _no_place))
        answered = self._answered.get(task, set())
        if len(answered) + len(state.requests) > MAX_QUESTIONS or any(len(key) > MAX_KEY for key in state.requests):
            raise CallRefused(f"The tool asked for something more than {MAX_QUESTIONS} times.")
        asked = ServerRequests.of(state.requests)
        answers = await inputs.answers(asked, {})
        given = {
            key: one.model_dump(mode="json", by_alias=True, exclude_none=True)
            for key, one in (answers.responses or {}).items()
        }
        if not given:
            raise CallRefused("The tool asked for something that it does not get.")
        await self._of_task(task, "tasks/update", _ANYTHING, responses=given)
        self._answered.setdefault(task, set()).update(given)
        while len(self._answered) > MAX_WAITING:
            self._answered.popitem(last=False)
        return None

    async def cancel(self, task: RemoteTask) -> None:
        """Tells the server to stop. Raises ServerUnavailable or ServerBusy if that failed. Ignores other errors."""
        with suppress(CallRefused, TaskLost, ServerLost, AnswerTooLarge, TimeoutError):
            async with asyncio.timeout(CANCEL_LIMIT):
                await self._of_task(task, "tasks/cancel", _ANYTHING)

    def abandon(self, task: RemoteTask) -> None:
        """Has the server told to stop, without waiting for it."""
        if len(self._cancels) < MAX_CANCELS:
            job = asyncio.create_task(self._try_to_cancel(task))
            self._cancels.add(job)
            job.add_done_callback(self._cancels.discard)

    async def _try_to_cancel(self, task: RemoteTask) -> None:
        try:
            await self.cancel(task)
        except (ServerUnavailable, ServerBusy):
            logger.warning("a task of an MCP server could not be cancelled", extra={"server": self.server.name})

    async def _result_of(self, task: RemoteTask, live: LiveCall | None = None) -> mcp_types.CallToolResult:
        result: mcp_types.CallToolResult = await self._of_task(task, "tasks/result", _RESULT, live=live)
        return result

    async def _of_task(
        self,
        task: RemoteTask,
        method: str,
        kind: TypeAdapter[Any],
        *,
        live: LiveCall | None = None,
        responses: dict[str, Any] | None = None,
    ) -> Any:
        request = _Request(method=method, params=_Params(task_id=task.id, input_responses=responses))
        try:
            async with asyncio.timeout(None if live is not None else LOOK_LIMIT):
                return await self._ask(task.whose, lambda link: link.ask(request, kind, None, live))
        except UnknownTask:
            raise TaskLost from None
        except TimeoutError:
            raise ServerLost from None
        except (ServerUnavailable, ServerLost):
            if isinstance(self.server, StdioServer):
                raise TaskLost from None
            raise


def _words_of(state: TaskState) -> str:
    said = state.error.get("message") if isinstance(state.error, Mapping) else None
    return said if isinstance(said, str) and said else state.words or "The tool server's task has failed."


@asynccontextmanager
async def _no_place() -> AsyncIterator[None]:
    yield

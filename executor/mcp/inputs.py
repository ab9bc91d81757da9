"""Requests of a server in the middle of a call, and the answers to them: forms and links for the user (elicitation),
prompts for the model (sampling), and the server's folders (roots).

Servers of the protocol up to 2025-11-25 send a request while the call waits. Since 2026-07-28 they end the call with
requests, and expect it again with the answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    ErrorData,
    InputRequest,
    InputRequests,
    InputResponse,
    ListRootsRequest,
    ListRootsResult,
    Root,
    TextContent,
)
from pydantic import FileUrl, TypeAdapter, ValidationError

from backend.chat.models import Json, NewMessage, Role, TextPart, ToolCallPart
from backend.chat.outcomes import Operation, ToolWork
from backend.chat.protocol.chunks import Data
from backend.errors import OperationNotFound, ProviderError, TooManyOperations, Unavailable, ValidationFailed
from backend.supervised import end_job
from executor.llm.clean_text import clean
from executor.mcp.elicitations import question_of
from executor.mcp.failures import CallRefused
from executor.mcp.server_entry import Server
from executor.tools.context import ToolContext
from executor.tools.tool import OperationAccepted, StoredResponse

MAX_QUESTIONS = 10
"""Questions of one call."""
MAX_RESUME = 262_144
"""Characters of what is stored until the user has answered."""
MAX_SAMPLING = 100_000
"""Characters of a server's request to the model."""
REJECTED = -1
"""The code for a request to the model that the user refuses (2025-11-25, client/sampling)."""
_requests: TypeAdapter[InputRequests] = TypeAdapter(InputRequests)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a repeated call brings: answers to the server's questions, by its keys, and the state that it gave."""

    responses: Mapping[str, InputResponse] | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class ServerRequests:
    """The requests of a server, which it wants answered before it goes on.

    `again`: the server wants the same call again, without answers, when the user has opened the links.
    """

    requests: InputRequests
    state: str | None = None
    again: bool = False

    @property
    def first(self) -> tuple[str, ElicitRequest] | None:
        asked = ((key, one) for key, one in self.requests.items() if isinstance(one, ElicitRequest))
        return next(asked, None)

    def check_links(self, server: Server) -> None:
        """Checks the links of a refused call before the first one is shown. Raises CallRefused, ValidationFailed."""
        if len(self.requests) > MAX_QUESTIONS:
            raise CallRefused(f"The tool needs more than {MAX_QUESTIONS} links opened first.")
        for one in self.requests.values():
            assert isinstance(one, ElicitRequest), "a refused call names only links"
            question_of(one.params, server)

    def as_text(self) -> str:
        """Returns the requests as ASCII, so that Postgres can store any state of a server. Raises CallRefused."""
        requests = _requests.dump_python(self.requests, mode="json", by_alias=True, exclude_none=True)
        text = json.dumps({"requests": requests, "state": self.state, "again": self.again})
        if len(text) > MAX_RESUME:
            raise CallRefused("The tool asks the user something, but has too much state to be stored.")
        return text

    @classmethod
    def of(cls, requests: Mapping[str, Any]) -> ServerRequests:
        """Returns what a task waits for. Raises CallRefused if that is nothing that a server may ask for."""
        try:
            return cls(_requests.validate_python(requests, by_name=False))
        except ValidationError:
            raise CallRefused("The tool asks for something that is not known here.") from None

    @classmethod
    def parse(cls, text: str) -> ServerRequests:
        document = json.loads(text)
        return cls(_requests.validate_python(document["requests"]), document["state"], document["again"])


@dataclass(slots=True)
class Inputs:
    """The questions of one call. A call waits up to `wait` seconds for an answer.

    `notes` tells the model of questions that the user has not answered. `roots` are those of the connection.
    """

    server: Server
    context: ToolContext
    call: ToolCallPart
    wait: float
    notes: list[str] = field(default_factory=list)
    roots: Sequence[Path] = ()
    _given: dict[bytes, ElicitResult] = field(default_factory=dict)
    _reusable: dict[bytes, ElicitResult] = field(default_factory=dict)
    _begun_again: bool = False
    _opened: dict[str, asyncio.Event] = field(default_factory=dict)
    _asked: int = 0
    _sampled: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def _may_ask(self) -> bool:
        """Returns True if the file allows questions, and the user's page shows them."""
        return self.context.can_ask and self.wait > 0

    async def elicit(self, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        """Asks the user while the call waits. Without an answer the server gets `cancel`."""
        try:
            question = question_of(params, self.server)
        except ValidationFailed as wrong:
            return ErrorData(code=INVALID_PARAMS, message=wrong.detail)
        if not self.wait:
            return self._cancelled("The tool asked the user something, but it is not permitted to ask.")
        if not self.context.can_ask:
            return self._cancelled("The tool asked the user something, but the user's page cannot show it.")
        async with self._turn:
            self._asked += 1
            if self._asked > MAX_QUESTIONS:
                return self._cancelled(f"The tool asked the user more than {MAX_QUESTIONS} questions.")
            work = ToolWork(
                self.context.task_id, self.call.tool_name, self.call.tool_call_id, self.call.input, asks=question
            )
            try:
                with self.context.untimed():
                    asking = self.context.operations.ask_now(work, self.wait, self._show)
                    answer = await self._unless_completed(params, asking)
            except (TooManyOperations, OperationNotFound, Unavailable) as error:
                return self._cancelled(f"The tool's question could not be put to the user: {error}")
            return self._result_of(answer)

    def completed(self, elicitation_id: str) -> None:
        """Notes that the server has seen the user at the link. Ids that are not open are left out."""
        if (opened := self._opened.get(elicitation_id)) is not None:
            opened.set()

    async def _unless_completed(self, params: ElicitRequestParams, asking: Coroutine[Any, Any, Json]) -> Json:
        """Returns the user's answer, or an approval as soon as the server has seen the user at the link."""
        if not isinstance(params, ElicitRequestURLParams) or params.elicitation_id is None:
            return await asking
        opened = self._opened[params.elicitation_id] = asyncio.Event()
        job, seen = asyncio.ensure_future(asking), asyncio.ensure_future(opened.wait())
        try:
            await asyncio.wait({job, seen}, return_when=asyncio.FIRST_COMPLETED)
            return job.result() if job.done() else {"type": "user_answered", "approved": True}
        finally:
            del self._opened[params.elicitation_id]
            seen.cancel()
            await end_job(job)

    async def answers(self, asked: ServerRequests, known: Mapping[str, InputResponse]) -> Answers:
        """Returns the answers to everything that is asked, of which some are known. Raises CallRefused."""
        given = dict(known)
        for key, request in asked.requests.items():
            if isinstance(request, ListRootsRequest) and not self.roots:
                continue  # the folders are not known before the call; the server asks again
            if key not in given:
                answer = await self._answer_to(request)
                if isinstance(answer, ErrorData):
                    raise CallRefused(f"The tool asked for something and was refused: {answer.message}")
                given[key] = answer
        return Answers(given or None, asked.state)

    async def ask_later(self, asked: ServerRequests) -> OperationAccepted | StoredResponse | None:
        """Asks the user the first question. The turn ends, and the call goes on with the answer in another turn.

        Returns None if the user need not or cannot be asked. Raises CallRefused and Unavailable.
        """
        if asked.first is None or not self._may_ask:
            return None
        try:
            question = question_of(asked.first[1].params, self.server)
            if asked.again:
                asked.check_links(self.server)
        except ValidationFailed as wrong:
            raise CallRefused(f"The tool asks the user something that cannot be shown: {wrong.detail}") from None
        work = ToolWork(
            self.context.task_id,
            self.call.tool_name,
            self.context.tool_call_id,
            self.call.input,
            asks=question,
            resume=asked.as_text(),
        )
        done = await self.context.operations.ask(work)
        if done.operation.result is not None:
            return StoredResponse(done.operation.result)
        return OperationAccepted(done.operation, done.already_started)

    async def resumed(self, operation: Operation) -> Answers:
        """Returns what the call goes on with, after the user has answered the first question. Raises CallRefused.

        A refused call is made again when the user has opened all of its links, one after the other (2025-11-25,
        client/elicitation: the error lists those that must be completed before the request is retried).
        """
        asked = ServerRequests.parse(operation.work.resume)
        assert asked.first is not None, "this is what the user was asked"
        answer = self._result_of({"type": "user_answered", **operation.given})
        self._given[_bytes_of(asked.first[1])] = answer
        if not asked.again:
            return await self.answers(asked, {asked.first[0]: answer})
        for key, request in asked.requests.items():
            opened = answer if key == asked.first[0] else await self._answer_to(request)
            if not isinstance(opened, ElicitResult) or opened.action != "accept":
                raise CallRefused("The user did not open a link that the tool needs first.")
        return Answers()

    async def opened(self, asked: ServerRequests) -> bool:
        """Asks the user to open links while the call waits. Returns True if the user has opened all of them."""
        for request in asked.requests.values():
            given = await self._answer_to(request)
            if not isinstance(given, ElicitResult) or given.action != "accept":
                return False
        return True

    def begin_again(self) -> bool:
        """Repeats the user's answers when the same questions come again. Returns False if it was called before."""
        again, self._begun_again = not self._begun_again, True
        self._reusable = dict(self._given)
        return again

    async def _answer_to(self, request: InputRequest) -> InputResponse | ErrorData:
        if isinstance(request, ElicitRequest):
            asked = _bytes_of(request)
            answer = self._reusable.pop(asked, None) or await self.elicit(request.params)
            if isinstance(answer, ElicitResult):
                self._given[asked] = answer
            return answer
        if isinstance(request, CreateMessageRequest):
            return await self.sample(request.params)
        return listed_roots(self.roots)

    async def sample(self, params: CreateMessageRequestParams) -> CreateMessageResult | ErrorData:
        """Asks the turn's model for the server, within the limits of the file and after the user has agreed."""
        allowed, sample = self.server.sampling, self.context.sample
        if allowed is None or sample is None:
            return ErrorData(code=INVALID_REQUEST, message="The model cannot be asked in this call.")
        try:
            messages = _messages_of(params)
        except ValidationFailed as wrong:
            return ErrorData(code=INVALID_PARAMS, message=wrong.detail)
        self._sampled += 1
        if self._sampled > allowed.calls:
            return ErrorData(code=INVALID_REQUEST, message=f"A call may ask the model {allowed.calls} times.")
        if allowed.ask and not await self._agrees(messages):
            return ErrorData(code=REJECTED, message="User rejected sampling request")
        system = clean(params.system_prompt or "")[:MAX_SAMPLING]
        most = max(1, min(params.max_tokens, allowed.tokens))
        try:
            said = await sample(system, messages, most)
        except ProviderError as error:
            return ErrorData(code=INTERNAL_ERROR, message=f"The model has not answered: {error.code}")
        ends = [place for stop in params.stop_sequences or () if stop and (place := said.text.find(stop)) >= 0]
        text = said.text[: min(ends)] if ends else said.text
        reason = "stopSequence" if ends else "maxTokens" if said.cut else "endTurn"
        content = TextContent(text=text)
        return CreateMessageResult(role="assistant", content=content, model=said.model, stop_reason=reason)

    async def _agrees(self, messages: Sequence[NewMessage]) -> bool:
        last = " ".join(part.text for part in messages[-1].parts if isinstance(part, TextPart))
        words = f"May this tool server ask the model the following?\n\n{last}"
        form = {"type": "object", "properties": {}}
        answer = await self.elicit(ElicitRequestFormParams(message=words, requested_schema=form))
        return isinstance(answer, ElicitResult) and answer.action == "accept"

    def _show(self, operation: Operation) -> None:
        """Shows the question in the stream of the turn, until the call has its result."""
        if self.context.show is None or operation.work.asks is None:
            return
        shown = {
            "operation_id": operation.id,
            "task_id": operation.task_id,
            "tool_call_id": self.call.tool_call_id,
            "deadline_at": operation.deadline_at.isoformat() if operation.deadline_at is not None else None,
            "asks": operation.work.asks.as_json(),
        }
        self.context.show(Data("question", shown, id=self.call.tool_call_id))

    def _result_of(self, answer: Json) -> ElicitResult:
        if self.context.show is not None:
            closed = {"tool_call_id": self.call.tool_call_id, "closed": True}
            self.context.show(Data("question", closed, id=self.call.tool_call_id))
        if answer.get("error") == "not_answered":
            return self._cancelled(
                f"The tool asked the user something, and the user did not answer within {self.wait:g} s."
            )
        if answer["type"] == "error":
            return self._cancelled("The tool asked the user something, but the question was cancelled.")
        if answer.get("dismissed"):
            return self._cancelled("The tool asked the user something, and the user went on without an answer.")
        if answer.get("declined"):
            return ElicitResult(action="decline")
        return ElicitResult(action="accept", content=answer.get("answer"))

    def _cancelled(self, note: str) -> ElicitResult:
        if note not in self.notes and len(self.notes) < MAX_QUESTIONS:  # a server may ask as often as it likes
            self.notes.append(note)
        return ElicitResult(action="cancel")


def _bytes_of(request: ElicitRequest) -> bytes:
    return request.model_dump_json(by_alias=True, exclude_none=True).encode()


def _messages_of(params: CreateMessageRequestParams) -> list[NewMessage]:
    """Returns the messages of a request to the model. Raises ValidationFailed unless they are texts, and not too long.

    Ignores the context, the temperature and the model that a server prefers: the turn's model answers.
    """
    if params.tools:
        raise ValidationFailed("The model is not given tools here.")
    messages, length = [], 0
    for one in params.messages:
        blocks = one.content_as_list
        if not all(isinstance(block, TextContent) for block in blocks):
            raise ValidationFailed("The model is only asked with texts here.")
        texts = [clean(block.text) for block in blocks if isinstance(block, TextContent)]
        length += sum(map(len, texts))
        messages.append(NewMessage(Role(one.role), tuple(TextPart(text) for text in texts)))
    if not messages or length > MAX_SAMPLING:
        raise ValidationFailed(f"A request to the model has 1 to {MAX_SAMPLING} characters.")
    return messages


def listed_roots(folders: Sequence[Path]) -> ListRootsResult:
    return ListRootsResult(roots=[Root(uri=FileUrl(folder.absolute().as_uri())) for folder in folders])

"""Answers that the AI SDK's clients send with the next POST of the conversation: decisions about
`tool-approval-request` (AI SDK 6 and 7), and outputs of the page's tools.

The last message of that request is the assistant's. In its last step, answered parts have the state
`approval-responded` and `approval: {id, approved, reason?}`, whose id is the operation's; or `output-available` or
`output-error` and are not `providerExecuted`. The server ignores all other members of the parts. The response continues
that message: it begins with its id, and has the streams of all operations that were answered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from fastapi import Response

from backend.api.attaching import attached_or_from_rows, slot_for
from backend.api.auth import Identity
from backend.api.message_schemas import ChatRequest
from backend.api.open_streams import Viewer
from backend.api.sse import EventStream, Frames
from backend.api.state import ApiState
from backend.chat.flows.answer import Answer, answer_question
from backend.chat.models import Caller, Json, Task
from backend.chat.protocol.chunks import Start, ascii_json, encode
from backend.chat.store import operations, sessions, tasks
from backend.errors import AlreadyCompleted, OperationNotFound, ValidationFailed
from backend.ids import OperationId, SessionId, TaskId

MOST_ANSWERS = 32
_DATA = b"data: "
_START = b'{"type":"start",'
_FINISH = b'{"type":"finish",'
_CALL = b'{"type":"tool-input-available",'
_OUTPUT = b'{"type":"tool-output-available",'


@dataclass(frozen=True, slots=True)
class PartAnswers:
    """The answers in the parts of one message: decisions by operation, and outputs by tool call id."""

    message_id: str
    decisions: Mapping[OperationId, Answer]
    outputs: Mapping[str, Answer]


def answers_in(body: ChatRequest) -> PartAnswers | None:
    """Returns the answers in the request's last message. None if that is not the assistant's, or has none."""
    last = body.messages[-1] if body.messages else body.message
    if last is None or last.role != "assistant" or body.trigger != "submit-message":
        return None
    decisions: dict[OperationId, Answer] = {}
    outputs: dict[str, Answer] = {}
    for part in last.parts:
        if part.get("state") == "approval-responded":
            id, answer = _decision_in(part.get("approval"))
            decisions[id] = answer
        elif isinstance(call := part.get("toolCallId"), str):
            failed = part.get("state") == "output-error"
            outputs[call] = Answer(error=str(part.get("errorText"))) if failed else Answer(output=part.get("output"))
    if len(decisions) + len(outputs) > MOST_ANSWERS:
        raise ValidationFailed(f"A request may answer {MOST_ANSWERS} calls.")
    return PartAnswers(last.id, decisions, outputs) if decisions or outputs else None


def _decision_in(approval: Json) -> tuple[OperationId, Answer]:
    found = approval if isinstance(approval, dict) else {}
    id, approved, reason = found.get("id"), found.get("approved"), found.get("reason")
    if not isinstance(id, str) or not isinstance(approved, bool):
        raise ValidationFailed("An approval has an `id`, and `approved` is true or false.")
    return OperationId(id), Answer(approved=approved, reason=reason if isinstance(reason, str) else None)


async def answer_and_stream(
    api: ApiState, identity: Identity, session_id: SessionId, given: PartAnswers, accepts: frozenset[str]
) -> Response:
    """Applies the answers, each by itself, and streams what follows. Answers given before are streamed again.

    Raises SessionNotFound, OperationNotFound, AlreadyCompleted if each has a different answer already, OperationGone,
    ValidationFailed, and TooManyStreams.
    """
    with slot_for(api, identity, "POST") as slot:
        continued = await _apply(api, identity.caller, session_id, given)
        if slot is not None:
            slot.subject = continued[0].id
        denied = {id for id, answer in given.decisions.items() if not answer.approved}

        async def frames() -> Frames:
            return _joined(api, given.message_id, continued, denied, accepts)

        return EventStream(
            frames,
            slot=slot,
            open_streams=api.open_streams,
            task_id=continued[0].id if len(continued) == 1 else None,
            expires_at=identity.expires_at,
            viewer=Viewer(session_id, identity.caller.user_id),
        )


async def _apply(api: ApiState, caller: Caller, session_id: SessionId, given: PartAnswers) -> list[Task]:
    """Returns the tasks that continue the turn, in the order in which they run."""
    answers = await _by_operation(api, caller, session_id, given)
    refused: AlreadyCompleted | None = None
    continued: list[TaskId] = []
    for id, answer in answers.items():
        try:
            done = await answer_question(api.resources, caller, id, answer)
        except AlreadyCompleted as late:  # another tab has given a different answer
            refused = late
            continue
        continued.append(done.task_id)
        if done.next_turn is not None:
            api.jobs.start(api.resources.outbox.publish(done.next_turn), name="publish")
    if refused is not None and not continued:
        raise refused
    async with api.resources.database.connection() as c:
        known = {task.id: task for task in await tasks.find_tasks(c, continued)}
    return [known[id] for id in continued]


async def _by_operation(
    api: ApiState, caller: Caller, session_id: SessionId, given: PartAnswers
) -> dict[OperationId, Answer]:
    """Returns the answers by operation. Raises OperationNotFound unless all are of this session of the caller."""
    answers = dict(given.decisions)
    async with api.resources.database.connection() as c:
        await sessions.get_session(c, session_id, caller)
        for id in given.decisions:
            if (await operations.get_operation_of(c, id, caller)).session_id != session_id:
                raise OperationNotFound
        for call, answer in given.outputs.items():
            operation = await operations.find_by_call(c, session_id, call)
            if operation is None:
                raise OperationNotFound
            answers[operation.id] = answer
    return answers


async def _joined(
    api: ApiState,
    message_id: str,
    continued: Sequence[Task],
    denied: Collection[OperationId],
    accepts: frozenset[str],
) -> Frames:
    """Yields the streams of the tasks as the rest of one message: with one start and one finish.

    The frames of a single task keep their ids, by which its stream can be resumed.
    """
    only = len(continued) == 1
    for place, task in enumerate(continued):
        first, last = place == 0, place == len(continued) - 1
        part = _Continuation(message_id, keep_ids=only, first=first, last=last, denied=task.operation_id in denied)
        async with aclosing(await attached_or_from_rows(api, task, accepts)) as blocks:
            async for block in blocks:
                yield b"".join(filter(None, map(part.frame, block.split(b"\n\n")[:-1])))


class _Continuation:
    """The frames of one task within the message that it continues. That message has the call already.

    A denied call gets `tool-output-denied`: AI SDK 6 and 7 refuse messages with an output of a call that the user has
    denied (`uiMessagesSchema`, 7.0.173).
    """

    def __init__(self, message_id: str, *, keep_ids: bool, first: bool, last: bool, denied: bool) -> None:
        self._start = encode(Start(message_id))
        self._keep_ids = keep_ids
        self._first = first
        self._last = last
        self._has_call = False
        self._denied = denied

    def frame(self, frame: bytes) -> bytes:
        """Returns the frame as the message has it, or b"" if it is left out. `frame` lacks its last empty line."""
        head, found, data = frame.partition(_DATA)
        if not found:
            return frame + b"\n\n"  # a comment
        if data.startswith(_CALL) and not self._has_call:
            self._has_call = True
            return b""
        if data.startswith(_OUTPUT) and self._denied:
            self._denied = False
            data = ascii_json({"type": "tool-output-denied", "toolCallId": orjson.loads(data)["toolCallId"]})
        elif data.startswith(_START):
            data = self._start if self._first else b""
        elif data.startswith(_FINISH) or data == b"[DONE]":
            data = data if self._last else b""
        return (head if self._keep_ids else b"") + _DATA + data + b"\n\n" if data else b""

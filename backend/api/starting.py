"""Starting a turn and streaming its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastapi import Response
from fastapi.responses import JSONResponse

from backend.api.attaching import attach_response, begin_response, slot_for
from backend.api.auth import Identity
from backend.api.message_schemas import ChatRequest, NewTurn, PageTool, Steered
from backend.api.state import ApiState
from backend.api.stopping import publish_unless_stopped
from backend.chat.flows import start
from backend.chat.flows.start import Started
from backend.chat.models import OWN_MESSAGE_ID, After, Caller, ModelChoice, OnBusy, TurnRequest
from backend.chat.questions import QUESTIONS
from backend.errors import UnsupportedPart
from backend.ids import SessionId

_OF_AUTOGPT = frozenset({"standard", "advanced"})


def choice_in(api: ApiState, body: NewTurn | ChatRequest) -> ModelChoice:
    """Returns the model that a message names, without the names that AutoGPT's page sends to every server."""
    model = body.model or None
    if model in _OF_AUTOGPT and api.resources.settings.models.find(model) is None:
        model = None
    return ModelChoice(model, body.effort or None)


def check_no_files(file_ids: Sequence[str] | None) -> None:
    """Raises UnsupportedPart if a message names files."""
    if file_ids:
        raise UnsupportedPart("A message cannot have files.")


def publish(api: ApiState, caller: Caller, started: Started) -> None:
    """Puts the turn on the queue in the background, if the queue may not have it."""
    task = started.task
    if started.is_new or started.unclaimed:  # an older turn may not be published: its commit lost the reply
        api.jobs.start(publish_unless_stopped(api, caller, task), name=f"publish {task.id}")


def _with_page(request: TurnRequest, accepts: frozenset[str], page_tools: Sequence[PageTool]) -> TurnRequest:
    """Returns the request with what the page can show and do."""
    named = tuple(tool.model_dump(exclude_none=True) for tool in page_tools)
    return replace(request, takes_questions=QUESTIONS in accepts, page_tools=named)


async def start_and_stream(
    api: ApiState,
    identity: Identity,
    session_id: SessionId,
    request: TurnRequest,
    *,
    message_key: str | None,
    on_busy: OnBusy,
    accepts: frozenset[str],
    create_session: bool = False,
    owner: Caller | None = None,
    after: After | None = None,
    page_tools: Sequence[PageTool] = (),
) -> Response:
    """Accepts the turn and streams it, or answers 202 if the running turn takes the message in.

    Publishing the turn continues even if the client disconnects.

    The turn counts to `owner` if a service asks for it, else to the caller. The open stream counts to the caller, as
    does a session that is created. Raises the errors of `start_turn`, TooManyStreams, TooManySessions.
    """
    with api.arrivals.arriving(session_id), slot_for(api, identity, "POST") as slot:
        started = await start.start_turn(
            api.resources,
            owner or identity.caller,
            session_id,
            _with_page(request, accepts, page_tools),
            message_key=message_key,
            on_busy=on_busy,
            create_session=create_session,
            on_create=lambda: api.new_sessions.count(identity.caller.quota_key),
            after=after,
        )
        task = started.task
        if slot is not None:
            slot.subject = task.id
        publish(api, identity.caller, started)
        if started.steers is not None:
            message_id = task.request.message_id or f"{OWN_MESSAGE_ID}{task.id}"
            steered = Steered(message_id=message_id, task_id=started.steers, queued_task_id=task.id)
            return JSONResponse(steered.model_dump(), 202)
        if not started.is_new:
            return await attach_response(api, identity, task, None, accepts, slot, by_service=owner is not None)
        return begin_response(api, identity, task, accepts, slot, by_service=owner is not None)

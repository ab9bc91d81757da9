"""OpenAI's chat completions, for Open WebUI, LibreChat and every OpenAI SDK as the frontend.

Such clients keep their conversations themselves, and send the whole conversation with each request. So each request is
a turn in a session of its own, which is deleted after a while; when the client disconnects, the turn is stopped. With
the header `X-Chat-Session-Id` the conversation is kept here instead: only the last message counts, and the turn goes on
without its client.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from backend.api.attaching import attached_or_from_rows, slot_for
from backend.api.auth import Identity
from backend.api.deps import AKey, AppState, AsIdentity
from backend.api.open_streams import StreamSlot, Viewer
from backend.api.openai_answers import OpenAIStream, WholeAnswer
from backend.api.openai_schemas import CompletionRequest
from backend.api.problems import responses
from backend.api.routes_base import CallerRoute
from backend.api.starting import publish
from backend.api.state import ApiState, address_of
from backend.api.user_message import UserMessage, check_text
from backend.chat.flows import cancel, start
from backend.chat.models import Json, ModelChoice, Task, TurnRequest
from backend.chat.protocol.renderings.openai_chunks import Completion, ToolsAs
from backend.chat.streams.reader import RESET_STEP
from backend.config import Settings
from backend.errors import MessageTooLong, ModelNotFound, ValidationFailed
from backend.ids import SESSION_ID_PATTERN, SessionId, new_session_id
from backend.model_list import DEFAULT_NAME

_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A `chat.completion` object, or with `stream` a stream of `chat.completion.chunk` objects.",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {}}},
    }
}
LIVES = 3600.0
"""Seconds after which the session of one request is deleted: long enough for what a tool of the turn has begun."""
MAX_INSTRUCTIONS = 100_000
"""Characters of the system messages of a request."""


class OpenAIRoute(CallerRoute):
    """A route for clients of OpenAI's protocol, which may also be a frontend's server with a key of its own."""

    max_values = 50_000

    def body_limit(self, settings: Settings) -> int:
        return settings.max_chat_body_bytes

    async def _identify(self, request: Request, api: ApiState) -> Identity:
        return api.frontend_keys.identify(request.headers, address_of(request)) or await super()._identify(request, api)


_responses = partial(responses, media_type="application/json")
router = APIRouter(
    prefix="/v1", tags=["OpenAI"], route_class=OpenAIRoute, responses=_responses(401, 413, 422, 429, 503)
)


async def _session_id(
    x_chat_session_id: Annotated[
        str | None,
        Header(
            pattern=SESSION_ID_PATTERN,
            description="Keeps the conversation in this session; only the last message then counts.",
        ),
    ] = None,
) -> SessionId | None:
    return None if x_chat_session_id is None else SessionId(x_chat_session_id)


@router.get("/models")
async def list_models(api: AppState, identity: AsIdentity) -> dict[str, Any]:
    """Lists the names that a request may give as its `model`."""
    return {"object": "list", "data": [_model(name) for name in _names(api)]}


@router.get("/models/{model:path}", responses=_responses(404))
async def get_model(api: AppState, identity: AsIdentity, model: str) -> Json:
    _check_model(api, model)
    return _model(model)


@router.post(
    "/chat/completions",
    response_class=Response,
    responses={**_ANSWERED, **_responses(400, 404, 408, 409, 410, 415, 502)},
)
async def complete(
    request: Request,
    api: AppState,
    identity: AsIdentity,
    body: CompletionRequest,
    key: AKey,
    kept_in: Annotated[SessionId | None, Depends(_session_id)],
) -> Response:
    """Answers the last message, as a stream of chunks or as one object."""
    _check_model(api, body.model)
    body.check_supported()
    if kept_in is not None and identity.caller.user_id is None and "authorization" in request.headers:
        raise ValidationFailed("X-Chat-Session-Id needs a user: name one in X-Chat-User-Id.")
    turn = _turn(body, api.resources.settings, key if kept_in else None, temporary=kept_in is None)
    with slot_for(api, identity, "POST") as slot:
        started = await start.start_turn(
            api.resources,
            identity.caller,
            kept_in or new_session_id(),
            turn,
            message_key=turn.message_id,
            create_session=True,
            lives=None if kept_in else LIVES,
            history=() if kept_in else body.history(),
            on_create=lambda: api.new_sessions.count(identity.caller.quota_key),
        )
        publish(api, identity.caller, started)
        return _respond(api, identity, started.task, body, slot, stops=kept_in is None)


def _turn(body: CompletionRequest, settings: Settings, key: str | None, *, temporary: bool) -> TurnRequest:
    question = check_text(UserMessage(body.question), settings).text
    instructions = body.instructions
    if instructions is not None and len(instructions) > MAX_INSTRUCTIONS:
        raise MessageTooLong(f"The system messages are too long; the limit is {MAX_INSTRUCTIONS} characters.")
    model = None if body.model == DEFAULT_NAME else body.model
    entry = settings.models.find(model)
    effort = body.reasoning_effort if entry is not None and entry.knows(body.reasoning_effort) else None
    choice = ModelChoice(model, effort)
    return TurnRequest(question, key, choice=choice, instructions=instructions, temporary=temporary)


def _respond(
    api: ApiState, identity: Identity, task: Task, body: CompletionRequest, slot: StreamSlot | None, *, stops: bool
) -> Response:
    usage = body.stream_options is not None and body.stream_options.include_usage is True
    completion = Completion(
        f"chatcmpl-{task.id}", body.model, int(time.time()), body.tools_as or ToolsAs.REASONING, usage
    )

    def stop() -> None:
        api.jobs.start(_stop(api, task), name=f"stop {task.id}")

    kind = OpenAIStream if body.stream else WholeAnswer
    return kind(
        lambda: attached_or_from_rows(api, task, frozenset({RESET_STEP})),
        completion,
        on_cut=stop if stops else None,
        slot=slot,
        open_streams=api.open_streams,
        task_id=task.id,
        expires_at=identity.expires_at,
        viewer=Viewer(task.session_id, identity.caller.user_id),
    )


async def _stop(api: ApiState, task: Task) -> None:
    """Stops a turn whose client has gone: nobody can read the rest of its answer."""
    await cancel.cancel_task(api.resources, task)


def _names(api: ApiState) -> list[str]:
    """Returns DEFAULT_NAME and, if the operator lists models, their ids."""
    models = api.resources.settings.models
    return [DEFAULT_NAME, *(entry.id for entry in models.shown if models.listed and entry.id != DEFAULT_NAME)]


def _check_model(api: ApiState, name: str) -> None:
    if name not in _names(api):
        raise ModelNotFound(f"There is no model {name[:100]!r}; GET /v1/models lists the names.")


def _model(name: str) -> Json:
    return {"id": name, "object": "model", "created": 0, "owned_by": "copilot"}

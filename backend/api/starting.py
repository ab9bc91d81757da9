"""From a message to the response that streams its answer."""

from __future__ import annotations

from fastapi import Response

from backend.api.attaching import attach_response, begin_response, seat_for
from backend.api.auth import Identity
from backend.api.desk import Desk
from backend.chat import flows
from backend.chat.models import Caller, OnBusy, Turn, TurnRequest
from backend.config import Settings
from backend.errors import EmptyMessage, MessageTooLong
from backend.ids import SessionId


def check_text(text: str, settings: Settings) -> str:
    """Raises EmptyMessage or MessageTooLong."""
    if not text.strip():
        raise EmptyMessage
    if len(text) > settings.max_message_chars:
        raise MessageTooLong(f"The message is too long; the limit is {settings.max_message_chars} characters.")
    return text


async def start_and_stream(
    desk: Desk,
    identity: Identity,
    session_id: SessionId,
    request: TurnRequest,
    *,
    message_key: str | None,
    on_busy: OnBusy,
    accepts: frozenset[str],
    create_session: bool = False,
    owner: Caller | None = None,
) -> Response:
    """Accepts the turn, then streams it. Publishing goes on beside the stream, whatever becomes of the client.

    The turn is the caller's own, or of `owner` when a service asks for it; the open stream is always the caller's.
    """
    with seat_for(desk, identity, "POST") as seat:
        task, is_new = await flows.start_turn(
            desk.house,
            owner or identity.caller,
            session_id,
            request,
            message_key=message_key,
            on_busy=on_busy,
            create_session=create_session,
        )
        if not is_new:
            return await attach_response(desk, identity, task, None, accepts, seat)
        if task.active:
            desk.jobs.start(desk.house.outbox.publish(Turn(task.id, session_id)), name=f"publish {task.id}")
        return begin_response(desk, identity, task, accepts, seat)

"""The message of a delivery: its body, and the headers that sign it. A push of A2A is not signed: it has a token.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md (2026-11).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from datetime import datetime

import orjson

from backend.chat.models import Json, Message
from backend.chat.protocol.renderings.a2a_tasks import Ids, brief_json, text_of
from backend.chat.store.webhooks.deliveries import ClaimedDelivery, Event

VERSION = 1
"""The version of the body. Members may be added without a new one."""
MOST_CHARACTERS = 100_000
"""Characters of an answer that an event has at most."""


def body_of(claimed: ClaimedDelivery, answer: Sequence[Message] | None) -> bytes:
    """Returns the JSON of an event. `answer` are the messages of its turn if the endpoint is to get the text."""
    if claimed.push:
        return _pushed(claimed, text_of(answer or ()))
    is_turn = claimed.event == Event.TURN_FINISHED
    data: dict[str, Json] = {
        "session_id": claimed.session_id,
        "task_id": claimed.task_id,
        "kind": claimed.kind.value,
        "status": claimed.status.value,
        "created_at": _time(claimed.created_at),
        "started_at": None if claimed.started_at is None else _time(claimed.started_at),
        "finished_at": _time(claimed.ended_at),
    }
    if claimed.operation_id is not None:
        data |= {"operation_id": claimed.operation_id, "tool_name": claimed.tool_name}
    if is_turn and claimed.task_error is not None:
        data["error"] = {"code": claimed.task_error.code, "message": claimed.task_error.message}
    if is_turn and answer is not None:
        text = text_of(answer)
        data |= {"text": text[:MOST_CHARACTERS], "text_is_cut": len(text) > MOST_CHARACTERS}
    event = {"version": VERSION, "type": claimed.event, "timestamp": _time(claimed.ended_at), "data": data}
    return orjson.dumps(event)


def headers_of(claimed: ClaimedDelivery, body: bytes) -> dict[str, str]:
    """Returns the headers of an attempt that begins now. Each valid secret gives one signature."""
    sent_at = str(int(time.time()))
    signed = f"{claimed.id}.{sent_at}.".encode() + body
    headers = {
        "content-type": "application/json",
        "user-agent": "CoPilot-Webhooks/1",
        "webhook-id": claimed.id,
        "webhook-timestamp": sent_at,
    }
    if claimed.secrets:
        headers["webhook-signature"] = " ".join(_signature(secret, signed) for secret in claimed.secrets)
    if claimed.token is not None:
        headers["x-a2a-notification-token"] = claimed.token
    if claimed.credentials is not None:
        headers["authorization"] = claimed.credentials
    return headers


def _pushed(claimed: ClaimedDelivery, text: str) -> bytes:
    """Returns the notification of A2A: a StreamResponse with the ended task."""
    ids = Ids(claimed.task_id, claimed.session_id)
    task = brief_json(ids, claimed.status, claimed.ended_at, claimed.task_error, text[:MOST_CHARACTERS])
    if len(text) > MOST_CHARACTERS:
        task["metadata"] = {"textIsCut": True}
    return orjson.dumps({"task": task})


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")

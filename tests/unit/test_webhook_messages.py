"""The messages of webhooks, and the waits between their attempts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from backend.chat.models import Message, Part, Role, TaskError, TaskKind, TaskStatus, TextPart, ToolResultPart
from backend.chat.store.webhooks.deliveries import SENT_FOR, ClaimedDelivery, Event
from backend.ids import OperationId, SessionId, TaskId, UserId
from executor.webhooks.attempt import ATTEMPT_LIMIT, LONGEST_WAIT, SHORTEST_WAIT, wait_after
from executor.webhooks.message import MOST_CHARACTERS, body_of, headers_of

NEW, OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
AT = datetime(2026, 11, 30, 12, 0, 0, 250_000, tzinfo=UTC)
CLAIMED = ClaimedDelivery(
    id="evt_1", endpoint_id="e", user_id=UserId("u"), leased_until=AT,
    url="https://example.com", secrets=(NEW, OLD), with_text=False, waited=0, failing=0,
    event=Event.TURN_FINISHED, status=TaskStatus.COMPLETED, ended_at=AT, task_id=TaskId("t"),
    session_id=SessionId("s"), kind=TaskKind.TURN, operation_id=None, tool_name=None, task_error=None,
    created_at=AT - timedelta(seconds=2), started_at=AT - timedelta(seconds=1),
)  # fmt: skip


def message(role: Role, *parts: Part) -> Message:
    return Message(SessionId("s"), 1, TaskId("t"), 1, role, parts, None, AT)


def told(claimed: ClaimedDelivery, answer: list[Message] | None = None) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(body_of(claimed, answer))
    return event


def test_each_valid_secret_verifies_a_message_and_no_other_does() -> None:
    body = body_of(CLAIMED, None)
    headers = headers_of(CLAIMED, body)
    for secret in (NEW, OLD):
        assert Webhook(secret).verify(body, headers)["type"] == "turn.finished"
    for wrong in (body.replace(b"completed", b"cancelled"), body + b" "):
        with pytest.raises(WebhookVerificationError):
            Webhook(NEW).verify(wrong, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(body, headers)


def test_an_event_has_ids_status_and_times() -> None:
    assert told(CLAIMED) == {
        "version": 1,
        "type": "turn.finished",
        "timestamp": "2026-11-30T12:00:00.250000Z",
        "data": {
            "session_id": "s", "task_id": "t", "kind": "turn", "status": "completed",
            "created_at": "2026-11-30T11:59:58.250000Z", "started_at": "2026-11-30T11:59:59.250000Z",
            "finished_at": "2026-11-30T12:00:00.250000Z",
        },
    }  # fmt: skip


def test_a_failed_turn_says_why() -> None:
    failed = replace(CLAIMED, status=TaskStatus.FAILED, task_error=TaskError("timeout", "It took too long."))
    assert told(failed)["data"]["error"] == {"code": "timeout", "message": "It took too long."}


def test_an_operation_has_its_id_and_tool_and_never_text() -> None:
    operation = replace(
        CLAIMED, event=Event.OPERATION_FINISHED, kind=TaskKind.OPERATION, operation_id=OperationId("o"),
        tool_name="create_agent",
    )  # fmt: skip
    data = told(operation, [message(Role.ASSISTANT, TextPart("secret"))])["data"]
    assert (data["operation_id"], data["tool_name"], data["kind"]) == ("o", "create_agent", "operation")
    assert "text" not in data


def test_an_endpoint_that_asks_gets_the_text_of_the_answer_alone() -> None:
    answer = [
        message(Role.USER, TextPart("question")),
        message(Role.ASSISTANT, TextPart("one")),
        message(Role.TOOL, ToolResultPart("c", "tool", {"type": "secret"})),
        message(Role.ASSISTANT, TextPart("two")),
    ]
    data = told(CLAIMED, answer)["data"]
    assert (data["text"], data["text_is_cut"]) == ("one\n\ntwo", False)
    data = told(CLAIMED, [message(Role.ASSISTANT, TextPart("x" * (MOST_CHARACTERS + 1)))])["data"]
    assert (len(data["text"]), data["text_is_cut"]) == (MOST_CHARACTERS, True)


def test_waits_grow_to_hours_and_a_day_has_few_attempts() -> None:
    waited, attempts = 0.0, 0
    while waited < SENT_FOR:
        wait = wait_after(waited, 0)
        assert SHORTEST_WAIT / 2 <= wait <= LONGEST_WAIT
        waited += wait + ATTEMPT_LIMIT
        attempts += 1
    assert 10 <= attempts <= 50


def test_an_endpoint_is_not_tried_before_it_asks() -> None:
    assert wait_after(0, 3600) == 3600
    assert wait_after(0, 10 * 365 * 86_400) == LONGEST_WAIT, "a wrong date must not end its events"
    assert wait_after(10 * LONGEST_WAIT, 1) >= LONGEST_WAIT / 2

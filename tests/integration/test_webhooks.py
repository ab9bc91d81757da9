"""Webhooks of users: events of turns and operations, from the end of a task to the endpoint."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from backend.chat.store.webhooks import deliveries
from backend.chat.store.webhooks.deliveries import MOST_WAITING
from tests.fakes.outside_work import OutsideToolbox
from tests.fakes.serving import Request
from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, running_api
from tests.servers.receiver import Receiver, receiver
from tests.speed import limit

PATH = "/api/chat/webhooks"
Headers = dict[str, str]
WAIT = limit(60)
"""The longest wait in seconds before the second attempt. No test waits for it: `hurry` ends it."""


@pytest.fixture(autouse=True)
def _wait_until_the_test_hurries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.webhooks.attempt.SHORTEST_WAIT", WAIT)


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    own = "127.0.0.0/8"
    async with running_api(postgres_dsn, redis_dsn, toolbox=OutsideToolbox, webhook_private_networks=own) as api:
        yield api


@pytest.fixture
async def inbox() -> AsyncIterator[Receiver]:
    async with receiver() as inbox:
        yield inbox


async def create(api: RunningApi, mine: Headers, url: str, **body: Any) -> dict[str, Any]:
    answer = await api.http.post(PATH, json={"url": url, **body}, headers=mine)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def log_of(api: RunningApi, mine: Headers, hook: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await api.http.get(f"{PATH}/{hook['id']}/deliveries", headers=mine)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["deliveries"]
    return found


async def logged(
    api: RunningApi, mine: Headers, hook: dict[str, Any], *, refused: int | None = None, **wanted: Any
) -> dict[str, Any]:
    """Returns the newest delivery once it has these members, and the error that it was `refused` with this status.

    An attempt that has not ended is counted, and waiting, too.
    """
    async with asyncio.timeout(LIMIT):
        while True:
            for newest in (await log_of(api, mine, hook))[:1]:
                answer = (newest["error"] or {}).get("answer")
                if wanted.items() <= newest.items() and refused in (None, answer):
                    return newest
            await asyncio.sleep(0.05)


async def the_hook(api: RunningApi, mine: Headers) -> dict[str, Any]:
    (hook,) = (await api.http.get(PATH, headers=mine)).json()["webhooks"]
    assert "secret" not in hook
    found: dict[str, Any] = hook
    return found


async def hurry(api: RunningApi, hook: dict[str, Any]) -> None:
    """Ends the wait before the next attempt."""
    async with api.resources.database.connection() as c:
        await c.execute("UPDATE webhook_endpoints SET paused_until = NULL WHERE id = $1", hook["id"])
        await c.execute(
            "UPDATE webhook_deliveries SET due_at = now() WHERE endpoint_id = $1 AND due_at IS NOT NULL", hook["id"]
        )


def event_of(request: Request, hook: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = Webhook(hook["secret"]).verify(request.body, request.headers)
    return event


def seconds_to(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


async def test_the_end_of_a_turn_is_sent_signed_and_without_text_unless_asked(api: RunningApi, inbox: Receiver) -> None:
    mine, others = api.as_user(), api.as_user()
    hooks = {
        path: await create(api, user, inbox.url(path), with_text=path == "/text")
        for path, user in (("/plain", mine), ("/text", mine), ("/other", others))
    }
    session = await api.new_session(mine)
    said = await api.say(session, "/say The secret answer", mine)
    requests = {request.path: request for request in (await inbox.next(), await inbox.next())}
    assert set(requests) == {"/plain", "/text"}
    event = event_of(requests["/plain"], hooks["/plain"])
    assert (event["version"], event["type"]) == (1, "turn.finished")
    data = event["data"]
    assert (data["session_id"], data["status"], data["kind"]) == (session, "completed", "turn")
    assert said.chunks[0]["messageId"] == f"msg_{data['task_id']}"
    assert data["created_at"] <= data["started_at"] <= data["finished_at"] == event["timestamp"]
    assert b"secret" not in requests["/plain"].body
    assert event_of(requests["/text"], hooks["/text"])["data"]["text"] == said.text
    delivered = await logged(api, mine, hooks["/plain"], state="delivered")
    assert requests["/plain"].headers["webhook-id"] == delivered["id"]
    assert (delivered["attempts"], delivered["error"], delivered["next_try_at"]) == (1, None, None)
    assert (await log_of(api, others, hooks["/other"])) == []


async def test_the_end_of_an_operation_is_sent_before_that_of_its_continuation(
    api: RunningApi, inbox: Receiver
) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    said = await api.say(session, '/tool outside_work {"label": "a"}', mine)
    (output,) = [chunk["output"] for chunk in said.chunks if chunk["type"] == "tool-output-available"]
    hook = await create(api, mine, inbox.url())
    only_turns = await create(api, mine, inbox.url("/turns"), events=["turn.finished"])
    done = await api.http.post(
        f"/api/chat/operations/{output['operation_id']}/complete",
        json={"success": True, "result": {"a": "secret"}},
        headers={"x-api-key": SERVICE_KEY},
    )
    assert done.status_code == 200
    events = {(r.path, event_of(r, hook if r.path == "/" else only_turns)["type"]): r for r in [
        await inbox.next() for _ in range(3)
    ]}  # fmt: skip
    assert set(events) == {("/", "operation.finished"), ("/", "turn.finished"), ("/turns", "turn.finished")}
    request = events["/", "operation.finished"]
    assert b"secret" not in request.body
    data = json.loads(request.body)["data"]
    assert (data["task_id"], data["operation_id"], data["status"]) == (
        output["task_id"], output["operation_id"], "completed",
    )  # fmt: skip
    assert (data["kind"], data["tool_name"]) == ("operation", "outside_work")


async def test_a_cancelled_operation_is_told(api: RunningApi, inbox: Receiver) -> None:
    mine = api.as_user()
    said = await api.say(await api.new_session(mine), '/tool outside_work {"label": "b"}', mine)
    (output,) = [chunk["output"] for chunk in said.chunks if chunk["type"] == "tool-output-available"]
    hook = await create(api, mine, inbox.url())
    assert (await api.http.post(f"/api/chat/tasks/{output['task_id']}/cancel", headers=mine)).json()["cancelled"]
    event = event_of(await inbox.next(), hook)
    assert (event["type"], event["data"]["status"]) == ("operation.finished", "cancelled")
    assert event["data"]["operation_id"] == output["operation_id"]


async def test_a_failed_attempt_is_repeated_with_the_same_id_and_the_log_says_why(
    api: RunningApi, inbox: Receiver
) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    inbox.answer_with([500, 307])
    await api.say(await api.new_session(mine), "/stream 1", mine)
    first = await inbox.next()
    failed = await logged(api, mine, hook, state="waiting", attempts=1, error={
        "code": "refused", "message": "The endpoint answered with an error.", "answer": 500,
    })  # fmt: skip
    assert 0 < seconds_to(failed["next_try_at"]) <= WAIT
    assert (await the_hook(api, mine))["failing_since"] is not None
    await hurry(api, hook)
    await inbox.next()
    await logged(api, mine, hook, attempts=2, state="waiting", refused=307)
    await hurry(api, hook)
    last = await inbox.next()
    assert {first.headers["webhook-id"], last.headers["webhook-id"]} == {failed["id"]}
    assert event_of(first, hook) == event_of(last, hook)
    await logged(api, mine, hook, attempts=3, state="delivered", error=None, next_try_at=None)
    assert (await the_hook(api, mine))["failing_since"] is None


async def test_an_endpoint_that_asks_for_time_gets_it_and_later_events_wait_too(
    api: RunningApi, inbox: Receiver
) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    inbox.answer_with([503])
    inbox.headers["retry-after"] = "3600"
    session = await api.new_session(mine)
    await api.say(session, "/stream 1", mine)
    await inbox.next()
    failed = await logged(api, mine, hook, attempts=1, state="waiting", refused=503)
    assert 3500 < seconds_to(failed["next_try_at"]) <= 3600
    await api.say(session, "/stream 1", mine)
    assert 3500 < seconds_to((await the_hook(api, mine))["paused_until"]) <= 3600
    (newer, _) = await log_of(api, mine, hook)
    assert newer["state"] == "waiting"
    async with api.resources.database.connection() as c:
        claimed = await deliveries.claim_due(c, limit=100, per_endpoint=100, per_user=100)
    assert not [one for one in claimed if one.endpoint_id == hook["id"]]
    sent = await api.http.post(f"{PATH}/{hook['id']}/deliveries/{failed['id']}/send", headers=mine)
    assert (sent.status_code, sent.json()["state"]) == (202, "waiting")
    ids = {(await inbox.next()).headers["webhook-id"] for _ in range(2)}
    assert ids == {failed["id"], newer["id"]}


async def test_410_disables_until_the_user_enables_and_what_waited_can_be_sent_again(
    api: RunningApi, inbox: Receiver
) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    inbox.answer_with([500, 410])
    session = await api.new_session(mine)
    await api.say(session, "/stream 1", mine)
    await inbox.next()
    delivery = await logged(api, mine, hook, attempts=1, state="waiting", refused=500)
    await hurry(api, hook)
    await inbox.next()
    gone = await logged(api, mine, hook, state="failed")
    assert (gone["error"]["code"], gone["error"]["answer"], gone["next_try_at"]) == ("gone", 410, None)
    seen = await the_hook(api, mine)
    assert (seen["enabled"], seen["disabled_by"]) == (False, "gone")
    await api.say(session, "/stream 1", mine)
    assert len(await log_of(api, mine, hook)) == 1
    again = f"{PATH}/{hook['id']}/deliveries/{delivery['id']}/send"
    refused = await api.http.post(again, headers=mine)
    assert (refused.status_code, refused.json()["code"]) == (409, "webhook_disabled")
    enabled = await api.http.patch(f"{PATH}/{hook['id']}", json={"enabled": True}, headers=mine)
    assert (enabled.json()["enabled"], enabled.json()["failing_since"]) == (True, None)
    assert (await api.http.post(again, headers=mine)).status_code == 202
    assert (await inbox.next()).headers["webhook-id"] == delivery["id"]
    await logged(api, mine, hook, state="delivered", attempts=3)


async def test_a_user_disables_changes_and_deletes_a_webhook(api: RunningApi, inbox: Receiver) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url(), events=["operation.finished"])
    at = f"{PATH}/{hook['id']}"
    changed = await api.http.patch(at, json={"events": ["turn.finished"], "with_text": True}, headers=mine)
    assert (changed.json()["events"], changed.json()["with_text"], changed.json()["enabled"]) == (
        ["turn.finished"], True, True,
    )  # fmt: skip
    inbox.answer_with([500])
    session = await api.new_session(mine)
    await api.say(session, "/stream 1", mine)
    await inbox.next()
    await logged(api, mine, hook, attempts=1, state="waiting", refused=500)
    off = await api.http.patch(at, json={"enabled": False}, headers=mine)
    assert (off.json()["enabled"], off.json()["disabled_by"]) == (False, "user")
    await logged(api, mine, hook, state="failed", next_try_at=None)
    bodies: list[dict[str, Any]] = [
        {},
        {"enabled": None},
        {"url": "https://example.com"},
        {"events": []},
        {"events": ["x"]},
    ]
    for body in bodies:
        assert (await api.http.patch(at, json=body, headers=mine)).status_code == 422
    assert (await api.http.delete(at, headers=mine)).status_code == 204
    assert (await api.http.get(f"{at}/deliveries", headers=mine)).json()["code"] == "webhook_not_found"
    assert (await api.http.get(PATH, headers=mine)).json() == {"webhooks": []}


async def test_for_a_day_after_a_rotation_both_secrets_sign(api: RunningApi, inbox: Receiver) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    rotated = (await api.http.post(f"{PATH}/{hook['id']}/rotate", headers=mine)).json()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", rotated["secret"])
    assert rotated["secret"] != hook["secret"]
    assert 86_000 < seconds_to(rotated["previous_until"]) <= 86_400
    session = await api.new_session(mine)
    await api.say(session, "/stream 1", mine)
    request = await inbox.next()
    assert event_of(request, hook) == event_of(request, rotated)
    async with api.resources.database.connection() as c:
        await c.execute("UPDATE webhook_endpoints SET previous_until = now() WHERE id = $1", hook["id"])
    await api.say(session, "/stream 1", mine)
    request = await inbox.next()
    assert event_of(request, rotated)
    with pytest.raises(WebhookVerificationError):
        event_of(request, hook)


async def test_a_session_and_a_user_are_deleted_with_their_deliveries(api: RunningApi, inbox: Receiver) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    sessions = [await api.new_session(mine) for _ in range(2)]
    for session in sessions:
        await api.say(session, "/stream 1", mine)
    assert len(await log_of(api, mine, hook)) == 2
    assert (await api.http.delete(f"/api/chat/sessions/{sessions[0]}", headers=mine)).status_code == 204
    assert [one["session_id"] for one in await log_of(api, mine, hook)] == sessions[1:]
    assert (await api.http.delete("/api/chat/user", headers=mine)).status_code == 204
    async with api.resources.database.connection() as c:
        for table, column in (("webhook_endpoints", "id"), ("webhook_deliveries", "endpoint_id")):
            assert await c.fetchval(f"SELECT count(*) FROM {table} WHERE {column} = $1", hook["id"]) == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [("ftp://example.com", "validation_error"), ("https://", "validation_error"), ("https://a b", "validation_error"),
     ("https://user:pass@example.com", "invalid_webhook_url"), ("https://example.com/#a", "invalid_webhook_url"),
     ("https://10.0.0.1/", "invalid_webhook_url"), ("http://169.254.169.254/latest", "invalid_webhook_url"),
     ("https://[::1]/", "invalid_webhook_url"), ("https://example.com/" + "x" * 2_000, "validation_error")],
)  # fmt: skip
async def test_a_url_that_cannot_be_used_is_refused(api: RunningApi, url: str, code: str) -> None:
    answer = await api.http.post(PATH, json={"url": url}, headers=api.as_user())
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_a_user_has_few_webhooks_and_nobody_anonymous_has_any(api: RunningApi) -> None:
    mine, body = api.as_user(), {"url": "https://example.com/"}
    answers = await asyncio.gather(*(api.http.post(PATH, json=body, headers=mine) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [429] * 3
    assert {answer.json()["code"] for answer in answers if answer.status_code == 429} == {"too_many_webhooks"}
    for method in ("GET", "POST"):
        answer = await api.http.request(method, PATH, json=body if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_an_event_for_which_there_is_no_room_is_logged_and_can_be_sent_later(
    api: RunningApi, inbox: Receiver
) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    session = await api.new_session(mine)
    await api.say(session, "/stream 1", mine)
    await inbox.next()
    delivered = await logged(api, mine, hook, state="delivered")
    async with api.resources.database.connection() as c:
        await c.execute(
            "INSERT INTO webhook_deliveries (id, endpoint_id, task_id, event, status, due_at)"
            " SELECT 'evt_' || n, $1, $2, 'turn.finished', 'completed', now() + interval '1 hour'"
            " FROM generate_series(1, $3) AS n",
            hook["id"], delivered["task_id"], MOST_WAITING,
        )  # fmt: skip
    await api.say(session, "/stream 1", mine)
    late = await logged(api, mine, hook, state="failed", attempts=0)
    assert late["error"]["code"] == "too_many_waiting"
    assert (await api.http.post(f"{PATH}/{hook['id']}/deliveries/{late['id']}/send", headers=mine)).status_code == 202
    assert (await inbox.next()).headers["webhook-id"] == late["id"]


async def test_events_of_old_deliveries_are_given_up_and_later_forgotten(api: RunningApi, inbox: Receiver) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    inbox.answer_with([500])
    await api.say(await api.new_session(mine), "/stream 1", mine)
    await inbox.next()
    delivery = await logged(api, mine, hook, attempts=1, state="waiting", refused=500)
    async with api.resources.database.connection() as c:
        await c.execute(
            "UPDATE webhook_deliveries SET queued_at = now() - interval '1 day' WHERE id = $1", delivery["id"]
        )
        inbox.answer_with([500])
        await hurry(api, hook)
        await inbox.next()
        assert (await logged(api, mine, hook, state="failed", attempts=2))["next_try_at"] is None
        await c.execute(
            "UPDATE webhook_deliveries SET created_at = created_at - interval '8 days',"
            " queued_at = created_at - interval '8 days' WHERE id = $1",
            delivery["id"],
        )
        await deliveries.prune(c, 100)
    assert await log_of(api, mine, hook) == []


async def test_requests_that_keep_no_conversation_send_nothing(api: RunningApi, inbox: Receiver) -> None:
    mine = api.as_user()
    hook = await create(api, mine, inbox.url())
    body = {"model": "copilot", "messages": [{"role": "user", "content": "/stream 1"}]}
    assert (await api.http.post("/v1/chat/completions", json=body, headers=mine)).status_code == 200
    assert await log_of(api, mine, hook) == []

"""Tests of outcomes that are signed as in Standard Webhooks."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from backend.api.auth import WebhookSecrets
from backend.config import Settings
from backend.errors import ConfigError
from tests.fakes.outside_work import OutsideToolbox
from tests.integration.running_api import SERVICE_KEY, RunningApi, new_id, running_api
from tests.integration.test_operations import begin

OLD, NEW = (f"whsec_{base64.b64encode(name * 8).decode()}" for name in (b"old!", b"new!"))
BODY = json.dumps({"success": True, "result": {"signed": True}}).encode()


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(
        postgres_dsn, redis_dsn, toolbox=OutsideToolbox, chat_webhook_secret=f"{NEW},{OLD}"
    ) as resources:
        yield resources


def signed(
    body: bytes, secret: str = NEW, *, message_id: str = "msg_1", age: float = 0, **changes: str
) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=age)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
    }
    return {**headers, **{name.replace("_", "-"): value for name, value in changes.items()}}


async def send(api: RunningApi, operation: str, headers: dict[str, str], body: bytes = BODY) -> httpx.Response:
    path = f"/api/chat/operations/{operation}/complete"
    return await api.http.post(path, content=body, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize("secret", [NEW, OLD])
async def test_an_outcome_signed_with_any_of_the_secrets_is_accepted(api: RunningApi, secret: str) -> None:
    mine = api.as_user()
    _, started = await begin(api, mine)
    several = f"v1,{base64.b64encode(b'x' * 32).decode()} {signed(BODY, secret)['webhook-signature']}"
    answer = await send(api, started["operation_id"], signed(BODY, secret, webhook_signature=several))
    assert answer.status_code == 200, answer.text
    assert (await api.ended(started["task_id"], mine)).chunks[-1]["messageMetadata"]["status"] == "completed"


async def test_a_signed_message_counts_for_one_operation_only(api: RunningApi) -> None:
    mine = api.as_user()
    (_, one), (_, other) = await begin(api, mine), await begin(api, mine)
    message = signed(BODY, message_id=f"msg_{new_id()}")
    missing = await send(api, "00000000-0000-4000-8000-000000000000", message)
    assert missing.status_code == 404, "it is not bound to an operation that does not exist"
    for replayed in (None, True):
        answer = await send(api, one["operation_id"], message)
        assert (answer.status_code, answer.json().get("replayed")) == (200, replayed)
    same_second = {**message, "webhook-timestamp": message["webhook-timestamp"] + ".0"}
    for again in (message, same_second):
        refused = await send(api, other["operation_id"], again)
        assert (refused.status_code, refused.json()["code"]) == (409, "webhook_reused")
    assert (await send(api, other["operation_id"], signed(BODY, message_id=f"msg_{new_id()}"))).status_code == 200
    for started in (one, other):
        await api.ended(started["task_id"], mine)


async def test_signed_progress_names_its_operation_in_the_body(api: RunningApi) -> None:
    mine = api.as_user()
    (_, one), (_, other) = await begin(api, mine), await begin(api, mine)
    body = json.dumps({"percent": 5, "operation_id": one["operation_id"]}).encode()
    headers = {"content-type": "application/json", **signed(body)}
    for started, status in ((other, 422), (one, 202)):
        path = f"/api/chat/operations/{started['operation_id']}/progress"
        assert (await api.http.post(path, content=body, headers=headers)).status_code == status
    body = b'{"percent": 6}'
    headers = {"content-type": "application/json", **signed(body)}
    for started, status in ((one, 202), (other, 409), (one, 202)):
        path = f"/api/chat/operations/{started['operation_id']}/progress"
        assert (await api.http.post(path, content=body, headers=headers)).status_code == status


async def test_an_invalid_signature_is_refused_with_the_same_error_for_any_reason(api: RunningApi) -> None:
    mine = api.as_user()
    _, started = await begin(api, mine)
    stranger = f"whsec_{base64.b64encode(b'else' * 8).decode()}"
    wrong = [
        signed(BODY, stranger),
        signed(BODY + b" "),
        signed(BODY, age=400),
        signed(BODY, age=-400),
        signed(BODY, webhook_timestamp="NaN"),
        signed(BODY, webhook_timestamp="soon"),
        signed(BODY, webhook_timestamp="1e400"),
        signed(BODY, webhook_signature="garbage"),
        signed(BODY, webhook_signature="v1,a,b"),
        signed(BODY, webhook_signature="v2,aGVsbG8="),
        signed(BODY, webhook_signature="v1," + "A" * 10_000),
        signed(BODY, webhook_id="msg_2"),
        {"webhook-signature": signed(BODY)["webhook-signature"]},
        {**signed(BODY, stranger), "x-api-key": SERVICE_KEY},
    ]
    for headers in wrong:
        answer = await send(api, started["operation_id"], headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "signature_invalid"), headers
    no_text = await send(api, started["operation_id"], signed(BODY), b"\xff\xfe")
    assert (no_text.status_code, no_text.json()["code"]) == (401, "signature_invalid")
    by_key = await send(api, started["operation_id"], {"x-api-key": SERVICE_KEY})
    assert by_key.status_code == 200, "no refused outcome was applied, and the key is still accepted"
    await api.ended(started["task_id"], mine)


async def test_a_server_without_keys_accepts_no_outcome(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False, chat_internal_api_key=None) as api:
        for headers in ({}, {"x-api-key": SERVICE_KEY}, {"x-api-key": ""}, signed(BODY)):
            answer = await send(api, "00000000-0000-4000-8000-000000000000", headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "webhook_not_configured")
            assert "retry-after" in answer.headers


def test_an_invalid_webhook_secret_is_a_config_error() -> None:
    for wrong in ("this is not base64 at all", "whsec_????????????????", f"{NEW},x" + "?" * 20):
        with pytest.raises(ConfigError, match="CHAT_WEBHOOK_SECRET"):
            WebhookSecrets(Settings(chat_webhook_secret=wrong))

"""Outcomes that are signed as the Standard Webhooks say, and what a wrong signature gets."""

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
from tests.integration.api_house import SERVICE_KEY, ApiHouse, api_house
from tests.integration.test_operations import begin, ended

OLD, NEW = (f"whsec_{base64.b64encode(name * 8).decode()}" for name in (b"old!", b"new!"))
BODY = json.dumps({"success": True, "result": {"signed": True}}).encode()


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    async with api_house(postgres_dsn, redis_dsn, toolbox=OutsideToolbox, chat_webhook_secret=f"{NEW},{OLD}") as house:
        yield house


def signed(body: bytes, secret: str = NEW, *, age: float = 0, **changes: str) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=age)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }
    return {**headers, **{name.replace("_", "-"): value for name, value in changes.items()}}


async def send(api: ApiHouse, operation: str, headers: dict[str, str], body: bytes = BODY) -> httpx.Response:
    path = f"/api/chat/operations/{operation}/complete"
    return await api.http.post(path, content=body, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize("secret", [NEW, OLD])
async def test_a_message_signed_by_any_of_the_secrets_is_believed(api: ApiHouse, secret: str) -> None:
    mine = api.as_user()
    _, started = await begin(api, mine)
    several = f"v1,{base64.b64encode(b'x' * 32).decode()} {signed(BODY, secret)['webhook-signature']}"
    answer = await send(api, started["operation_id"], signed(BODY, secret, webhook_signature=several))
    assert answer.status_code == 200, answer.text
    assert (await ended(api, started["task_id"], mine)).chunks[-1]["messageMetadata"]["status"] == "completed"


async def test_what_is_wrong_with_a_signature_does_not_matter(api: ApiHouse) -> None:
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
    assert by_key.status_code == 200, "nothing of it was applied, and the key still opens"
    await ended(api, started["task_id"], mine)


async def test_a_server_that_knows_no_service_takes_nothing(postgres_dsn: str, redis_dsn: str) -> None:
    async with api_house(postgres_dsn, redis_dsn, executor=False, chat_internal_api_key=None) as api:
        for headers in ({}, {"x-api-key": SERVICE_KEY}, {"x-api-key": ""}, signed(BODY)):
            answer = await send(api, "00000000-0000-4000-8000-000000000000", headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "webhook_not_configured")
            assert "retry-after" in answer.headers


def test_a_secret_that_is_none_stops_the_start() -> None:
    for wrong in ("this is not base64 at all", "whsec_????????????????", f"{NEW},x" + "?" * 20):
        with pytest.raises(ConfigError, match="CHAT_WEBHOOK_SECRET"):
            WebhookSecrets(Settings(chat_webhook_secret=wrong))

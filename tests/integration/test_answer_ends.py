"""Ends of answers that people see: in the stream, in the history, and in what later prompts hold. Over real stores."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.running import fake_server, requests_of
from tests.integration.running_api import LIMIT, RunningApi, running_api, without_comments
from tests.sse_client import StrictClient

EXPLAINED = "This request was declined because it could enable harm."


@pytest.fixture(scope="module")
async def claude() -> AsyncIterator[str]:
    async with fake_server("anthropic") as url:
        yield url


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, claude: str) -> AsyncIterator[RunningApi]:
    model = {"chat_provider": "anthropic", "chat_base_url": claude, "chat_api_key": "k", "chat_model": "m"}
    async with running_api(postgres_dsn, redis_dsn, **model) as resources:
        yield resources


async def history(api: RunningApi, session: str, mine: dict[str, str]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = (await api.session(session, mine, format="ui"))["messages"]
    return answers


def _without_state(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "state"}


@pytest.mark.parametrize(
    ("script", "reason", "more"),
    [
        ("/say It is\n/finish max_tokens", "length", {"finishReason": "length"}),
        ("/think Hm hm hm\n/finish max_tokens", "length", {"finishReason": "length"}),
        ("/finish something_new", "other", {"finishReason": "other"}),
        ("/finish end_turn", "stop", {}),
        (
            f"/say Well\n/finish refusal {EXPLAINED}", "content-filter",
            {"finishReason": "content-filter", "explanation": EXPLAINED},
        ),
        ("/say All of it", "stop", {}),
    ],
)  # fmt: skip
async def test_the_end_of_an_answer_is_told_in_the_stream_and_in_the_history(
    api: RunningApi, script: str, reason: str, more: dict[str, str]
) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    client = await api.say(session, f"{uuid.uuid4().hex}\n{script}", mine)
    last = client.chunks[-1]
    assert last["finishReason"] == reason
    assert {name: last["messageMetadata"].get(name) for name in more} == more
    assert set(last["messageMetadata"]) == {"status", "usage", "model", *more}
    _, answer = await history(api, session, mine)
    assert answer["metadata"] == last["messageMetadata"]
    assert [_without_state(part) for part in answer["parts"]] == [_without_state(part) for part in client.parts]
    task = client.chunks[0]["messageId"].removeprefix("msg_")
    _, again = await api.read("GET", f"/api/chat/tasks/{task}/stream", headers=mine)
    assert again.chunks[-1] == last, "a replay ends as the stream did"


async def test_a_refused_exchange_is_left_out_of_later_prompts(api: RunningApi, claude: str) -> None:
    mine, mark = api.as_user(), uuid.uuid4().hex
    session = await api.new_session(mine)
    await api.say(session, f"{mark} first\n/say One", mine)
    refused = await api.say(session, f"{mark} harmful\n/say Half of an ans\n/finish refusal {EXPLAINED}", mine)
    assert refused.chunks[-1]["messageMetadata"]["explanation"] == EXPLAINED
    assert (await api.say(session, f"{mark} later\n/say Three", mine)).text == "Three"
    sent = json.dumps((await requests_of(claude, mark))[-1]["body"]["messages"])
    assert f"{mark} first" in sent
    assert f"{mark} harmful" not in sent
    assert "Half of an ans" not in sent
    assert "refused them" in sent
    shown = await history(api, session, mine)
    assert "harmful" in json.dumps(shown), "the user still sees it"
    regenerated = {"trigger": "regenerate-message", "id": session, "messageId": shown[3]["id"], "messages": shown[:4]}
    _, again = await api.read("POST", "/api/chat", json=regenerated, headers=mine)
    assert again.chunks[-1]["finishReason"] == "content-filter"
    assert f"{mark} harmful" in json.dumps((await requests_of(claude, mark))[-1]["body"]["messages"]), "asked again"


async def test_a_prompt_that_the_filter_refuses_does_not_end_the_conversation(api: RunningApi, claude: str) -> None:
    mine, mark = api.as_user(), uuid.uuid4().hex
    session = await api.new_session(mine)
    body = json.dumps(json.dumps({"error": {"message": "Output blocked by content_filter policy"}}))
    failed = await api.say(session, f"{mark} harmful\n/body 400 0 application/json {body}", mine)
    assert failed.chunks[-1]["messageMetadata"]["status"] == "failed"
    await api.say(session, f"{mark} later\n/say Fine", mine)
    assert "harmful" not in json.dumps((await requests_of(claude, mark))[-1]["body"]["messages"])


async def test_a_cancelled_and_a_failed_answer_count_what_the_provider_had_told(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    failed = await api.say(session, f"{uuid.uuid4().hex}\n/say Half\n/drop", mine)
    metadata = failed.chunks[-1]["messageMetadata"]
    assert (metadata["status"], metadata["usage"]["inputTokens"]) == ("failed", 11)
    assert metadata["usage"]["cachedInputTokens"] == 4
    stopped = StrictClient()
    asked = {"message": f"{uuid.uuid4().hex}\n/say Half\n/hang"}
    path = f"/api/chat/sessions/{session}"
    async with asyncio.timeout(LIMIT), api.http.stream("POST", f"{path}/stream", json=asked, headers=mine) as answer:
        async for data in answer.aiter_raw():
            stopped.feed(without_comments(data))
            if stopped.text == "Half" and not stopped.done:
                await api.http.post(f"{path}/cancel", headers=mine)
    metadata = stopped.chunks[-1]["messageMetadata"]
    assert (metadata["status"], metadata["usage"]["inputTokens"]) == ("cancelled", 11)

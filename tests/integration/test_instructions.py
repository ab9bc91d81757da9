"""Instructions of a user and of a session: what models are told after the operator's prompt."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.chat.store.instructions import MAX_INSTRUCTIONS
from tests.fakes.running import fake_server
from tests.integration.running_api import RunningApi, new_id, running_api
from tests.plain_http import http_client

PATH = "/api/chat/instructions"


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with fake_server("openai") as url:
        yield url


def settings_of(url: str) -> dict[str, Any]:
    model = {"chat_provider": "openai", "chat_base_url": f"{url}/v1", "chat_model": "m"}
    return {**model, "chat_system_prompt": "The operator's."}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, url: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, **settings_of(url)) as api:
        yield api


async def told(api: RunningApi, url: str, session: str, headers: dict[str, str] | None) -> str:
    """Returns the system prompt that the model gets with a message."""
    mark = uuid.uuid4().hex
    await api.say(session, f"/say Hello\n{mark}", headers)
    async with http_client() as client:
        requests = (await client.get(f"{url}/requests")).json()
    body = next(request["body"] for request in requests if mark in json.dumps(request["body"]))
    system: str = body["messages"][0]["content"]
    return system


async def test_models_are_told_the_instructions_of_user_and_session_after_the_operators(
    api: RunningApi, url: str
) -> None:
    mine, other = api.as_user(), api.as_user()
    session = await api.new_session(mine)
    assert await told(api, url, session, mine) == "The operator's."
    answer = await api.http.put(PATH, json={"instructions": "Call me Ada."}, headers=mine)
    assert (answer.status_code, answer.json()) == (200, {"instructions": "Call me Ada.", "enabled": True})
    assert (await api.http.get(PATH, headers=mine)).json()["instructions"] == "Call me Ada."
    of_user = "The operator's.\n\n# Instructions of the user\n\nCall me Ada."
    assert await told(api, url, session, mine) == of_user
    changed = await api.http.patch(f"/api/chat/sessions/{session}", json={"instructions": "Be short."}, headers=mine)
    assert changed.status_code == 200
    assert (await api.session(session, mine))["instructions"] == "Be short."
    assert await told(api, url, session, mine) == f"{of_user}\n\n# Instructions of this conversation\n\nBe short."
    assert await told(api, url, await api.new_session(mine), mine) == of_user
    assert await told(api, url, await api.new_session(other), other) == "The operator's."
    await api.http.put(PATH, json={"instructions": None}, headers=mine)
    await api.http.patch(f"/api/chat/sessions/{session}", json={"instructions": ""}, headers=mine)
    assert await told(api, url, session, mine) == "The operator's."


async def test_a_session_is_created_with_instructions(api: RunningApi, url: str) -> None:
    for headers in (None, api.as_user()):
        body = {"id": new_id(), "instructions": "Rhyme."}
        made = await api.http.post("/api/chat/sessions", json=body, headers=headers)
        assert made.status_code == 201
        assert (await told(api, url, body["id"], headers)).endswith("# Instructions of this conversation\n\nRhyme.")


async def test_a_change_of_a_session_that_names_nothing_is_refused(api: RunningApi) -> None:
    mine = api.as_user()
    path = f"/api/chat/sessions/{await api.new_session(mine)}"
    both = await api.http.patch(path, json={"title": "A title", "instructions": "x"}, headers=mine)
    assert (both.status_code, both.json()["title"]) == (200, "A title")
    for body in (
        {},
        {"title": None},
        {"title": None, "instructions": None},
        {"instructions": "x" * (MAX_INSTRUCTIONS + 1)},
        {"instructions": 1},
    ):
        assert (await api.http.patch(path, json=body, headers=mine)).status_code == 422
    other = await api.http.patch(path, json={"instructions": "x"}, headers=api.as_user())
    assert (other.status_code, other.json()["code"]) == (404, "session_not_found")


async def test_the_instructions_of_a_user_need_a_user_and_have_a_limit(api: RunningApi) -> None:
    for method in ("GET", "PUT"):
        answer = await api.http.request(method, PATH, json={"instructions": "x"} if method == "PUT" else None)
        assert answer.status_code == 401
    mine = api.as_user()
    for body, status in (
        ({"instructions": "x" * MAX_INSTRUCTIONS}, 200),
        ({"instructions": "x" * 4_001}, 422),
        ({}, 422),
    ):
        assert (await api.http.put(PATH, json=body, headers=mine)).status_code == status


async def test_instructions_are_deleted_with_the_user(api: RunningApi) -> None:
    mine = api.as_user()
    await api.http.put(PATH, json={"instructions": "x"}, headers=mine)
    assert (await api.http.delete("/api/chat/user", headers=mine)).status_code == 204
    assert (await api.http.get(PATH, headers=mine)).json()["instructions"] is None


async def test_an_operator_may_switch_instructions_off(postgres_dsn: str, redis_dsn: str, api: RunningApi) -> None:
    mine = api.as_user()
    await api.http.put(PATH, json={"instructions": "x"}, headers=mine)
    async with running_api(postgres_dsn, redis_dsn, executor=False, user_instructions=False) as closed:
        assert (await closed.http.get(PATH, headers=mine)).json() == {"instructions": "x", "enabled": False}
        session = await closed.new_session(mine)
        for method, path in (
            ("PUT", PATH),
            ("PATCH", f"/api/chat/sessions/{session}"),
            ("POST", "/api/chat/sessions"),
        ):
            answer = await closed.http.request(method, path, json={"instructions": "y"}, headers=mine)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

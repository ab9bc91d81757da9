"""The choice of a model: listed for callers, named by a message, kept in the session, and asked by the executor."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.outside_work import OutsideToolbox
from tests.fakes.running import fake_server
from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api
from tests.integration.test_api_chat import chat, user_message
from tests.integration.test_operations import complete
from tests.plain_http import http_client

IDS = ["one", "two", "three"]


@dataclass
class Chooser:
    """An API with three models at one fake server, which remembers the model of each request."""

    api: RunningApi
    url: str

    async def asked(self, mark: str) -> list[tuple[str, str | None]]:
        """Returns model and effort of each request whose last message of the user holds the mark."""
        async with http_client() as client:
            bodies = [request["body"] for request in (await client.get(f"{self.url}/requests")).json()]
        return [
            (body["model"].removeprefix("m-"), body.get("reasoning_effort"))
            for body in bodies
            if mark in json.dumps([message for message in body["messages"] if message["role"] == "user"][-1])
        ]

    async def say(self, session: str, text: str, **body: Any) -> list[tuple[str, str | None]]:
        """Returns model and effort of the requests for one message."""
        mark = uuid.uuid4().hex
        await self.api.say(session, f"{text}\n{mark}", **body)
        return await self.asked(mark)

    async def choice(self, session: str) -> tuple[str, str | None]:
        found = await self.api.session(session)
        return found["model"], found["effort"]


@pytest.fixture(scope="module")
async def chooser(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Chooser]:
    async with fake_server("openai") as url:
        entries = [
            {"id": id, "model": f"m-{id}", "base_url": f"{url}/v1", "key": "sk-secret", "efforts": efforts}
            for id, efforts in zip(IDS, ([], ["low", "high"], ["high"]), strict=True)
        ]
        entries[1] |= {"label": "The second", "price": {"input": 1, "output": 2.5}, "effort": "low", "images": True}
        entries.append({**entries[0], "id": "small", "hidden": True})
        settings = {"chat_provider": None, "chat_models": json.dumps(entries)}
        async with running_api(postgres_dsn, redis_dsn, toolbox=OutsideToolbox, **settings) as api:
            yield Chooser(api, url)


async def test_callers_see_the_models_and_nothing_secret(chooser: Chooser) -> None:
    for headers in (None, chooser.api.as_user()):
        answer = await chooser.api.http.get("/api/chat/models", headers=headers)
        assert answer.status_code == 200
        models = answer.json()["models"]
        assert [(one["id"], one["label"], one["default"]) for one in models] == [
            ("one", "one", True),
            ("two", "The second", False),
            ("three", "three", False),
        ]
        assert models[1] == {
            "id": "two",
            "label": "The second",
            "default": False,
            "context_tokens": 128_000,
            "max_output_tokens": 8_192,
            "efforts": ["low", "high"],
            "effort": "low",
            "images": True,
            "accepts": ["image"],
            "price": {"input": 1, "output": 2.5, "cached": 1, "currency": "USD"},
        }
        assert "sk-secret" not in answer.text
        assert chooser.url not in answer.text


async def test_a_message_names_a_model_and_the_session_keeps_it(chooser: Chooser) -> None:
    session = await chooser.api.new_session()
    assert await chooser.choice(session) == ("one", None)
    assert await chooser.say(session, "/say a") == [("one", None)]
    assert await chooser.say(session, "/say b", model="two") == [("two", "low")]
    assert await chooser.say(session, "/say c") == [("two", "low")]
    assert await chooser.say(session, "/say d", effort="high") == [("two", "high")]
    assert await chooser.say(session, "/say e") == [("two", "high")]
    assert await chooser.choice(session) == ("two", "high")
    assert await chooser.say(session, "/say f", model="three") == [("three", None)]
    assert await chooser.choice(session) == ("three", None)
    other = await chooser.api.new_session()
    assert await chooser.say(other, "/say g") == [("one", None)]


async def test_use_chat_names_a_model_in_its_body_and_revisions_use_the_choice_of_the_session(chooser: Chooser) -> None:
    session, mark = new_id(), uuid.uuid4().hex
    question = user_message("m1", f"/say a\n{mark}")
    await chat(chooser.api, session, question, model="two", effort="high")
    await chat(chooser.api, session, question, trigger="regenerate-message")
    await chat(chooser.api, session, user_message("m1", f"/say b\n{mark}"), messageId="m1")
    assert await chooser.asked(mark) == [("two", "high")] * 3
    await chat(chooser.api, session, user_message("m1", f"/say b\n{mark}"), trigger="regenerate-message", model="three")
    assert (await chooser.asked(mark))[3:] == [("three", None)]
    assert await chooser.choice(session) == ("three", None)


@pytest.mark.parametrize(
    ("body", "code", "known"),
    [
        ({"model": "four"}, "unknown_model", {"models": IDS}),
        ({"model": "small"}, "unknown_model", {"models": IDS}),
        ({"model": "m-one"}, "unknown_model", {"models": IDS}),
        ({"model": "two", "effort": "extreme"}, "unknown_effort", {"model": "two", "efforts": ["low", "high"]}),
        ({"effort": "low"}, "unknown_effort", {"model": "one", "efforts": []}),
        ({"model": 3}, "validation_error", {}),
        ({"model": "x" * 101}, "validation_error", {}),
    ],
)
async def test_an_unknown_model_or_effort_is_a_422_that_names_the_known_ones(
    chooser: Chooser, body: dict[str, Any], code: str, known: dict[str, Any]
) -> None:
    session = await chooser.api.new_session()
    new = {"id": new_id(), "messages": [user_message("m1", "Hello")]}
    for path, sent in ((f"/api/chat/sessions/{session}/stream", {"message": "Hello"}), ("/api/chat", new)):
        answer = await chooser.api.http.post(path, json={**sent, **body})
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert known.items() <= answer.json().items()
    assert (await chooser.api.session(session))["messages"] == []
    assert (await chooser.api.http.get(f"/api/chat/sessions/{new['id']}")).status_code == 404


async def test_the_names_that_autogpts_page_sends_change_nothing(chooser: Chooser) -> None:
    session = await chooser.api.new_session()
    await chooser.say(session, "/say a", model="two")
    for model in ("standard", "advanced"):
        assert await chooser.say(session, "/say b", model=model, mode="extended_thinking") == [("two", "low")]


async def test_a_waiting_message_keeps_its_own_choice(chooser: Chooser) -> None:
    session, mark = await chooser.api.new_session(), uuid.uuid4().hex
    said = [
        asyncio.create_task(chooser.api.say(session, f"/stream 3000 20\n{mark}", message_id="m0")),
    ]
    await chooser.api.active_stream(session)
    for waiting, model in enumerate((None, "two", None, "three"), 1):
        named = {} if model is None else {"model": model}
        said.append(asyncio.create_task(chooser.api.say(session, f"/say x\n{mark}", **named)))
        async with asyncio.timeout(LIMIT):
            while len((await chooser.api.session(session))["queued"]) < waiting:
                await asyncio.sleep(0.02)
    await chooser.api.http.post(f"/api/chat/sessions/{session}/cancel")
    await asyncio.gather(*said)
    assert [model for model, _ in await chooser.asked(mark)] == ["one", "one", "two", "two", "three"]


async def test_the_continuation_of_an_operation_uses_the_choice_of_its_session(chooser: Chooser) -> None:
    mine = chooser.api.as_user()
    session = await chooser.api.new_session(mine)
    call = '/tool outside_work {"label": "a"}\n/then\n/say It runs.'
    begun = await chooser.api.say(session, call, mine, model="two")
    output = next(chunk["output"] for chunk in begun.chunks if chunk["type"] == "tool-output-available")
    await chooser.api.say(session, "/say meanwhile", mine, model="three", effort="high")
    assert (await complete(chooser.api, output["operation_id"], result="done")).status_code == 200
    await chooser.api.ended(output["task_id"], mine)
    assert (await chooser.asked("outside_work"))[-1:] == [("three", "high")]


async def test_a_session_whose_model_was_removed_is_answered_by_the_default(
    chooser: Chooser, caplog: pytest.LogCaptureFixture
) -> None:
    session = await chooser.api.new_session()
    await chooser.say(session, "/say a", model="two", effort="high")
    async with chooser.api.resources.database.connection() as c:
        await c.execute("UPDATE sessions SET model = 'removed' WHERE id = $1", session)
    assert await chooser.choice(session) == ("one", None)
    assert await chooser.say(session, "/say b") == [("one", None)]
    assert await chooser.say(session, "/say c") == [("one", None)]
    assert [record.getMessage() for record in caplog.records if "CHAT_MODELS" in record.getMessage()] == [
        "a conversation's model is not in CHAT_MODELS; the default answers"
    ]
    assert await chooser.say(session, "/say d", model="three") == [("three", None)]

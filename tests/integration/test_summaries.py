"""A conversation that fills its context goes on with a summary of its older messages.

The provider is as strict as OpenAI's. Its summary has the sentences that begin with `FACT:`; with `/summary` in a
message it does what that says (`tests/fakes/script.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.chat.models import SUMMARY_NOTICE
from executor.llm.summaries import REQUEST
from tests.fakes.outside_work import OutsideToolbox
from tests.fakes.running import bodies_of, fake_server
from tests.integration.running_api import LIMIT, RunningApi, executing, new_id, running_api
from tests.integration.test_api_branches import Tab
from tests.integration.test_operations import complete

LONG = "word " * 440
"""A fourth of what fills the context of the model `small`."""
PRICE = {"input": 10, "output": 100, "cached": 1}


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with fake_server("openai") as url:
        yield url


@pytest.fixture(scope="module")
async def anthropic_url() -> AsyncIterator[str]:
    async with fake_server("anthropic") as url:
        yield url


def models_of(url: str, anthropic_url: str) -> str:
    """Returns CHAT_MODELS: `small`, `large`, and `claude`, whose server tells the input at once."""
    at: dict[str, Any] = {"base_url": f"{url}/v1", "key": "k", "model": "caches", "price": PRICE}
    large = {**at, "id": "large", "context_tokens": 8_000, "max_output_tokens": 1_024}
    return json.dumps(
        [
            {**at, "id": "small", "context_tokens": 4_000, "max_output_tokens": 512},
            large,
            {**large, "id": "claude", "provider": "anthropic", "base_url": anthropic_url},
        ]
    )


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, url: str, anthropic_url: str) -> AsyncIterator[RunningApi]:
    async with running_api(
        postgres_dsn, redis_dsn, toolbox=OutsideToolbox,
        chat_provider=None, chat_models=models_of(url, anthropic_url), chat_system_prompt="Be kind.",
    ) as api:  # fmt: skip
        yield api


async def rows_of(api: RunningApi, session: str) -> list[Any]:
    async with api.resources.database.connection() as c:
        return await c.fetch("SELECT * FROM summaries WHERE session_id = $1 ORDER BY through", session)


async def settled(api: RunningApi, session: str, count: int = 1) -> list[Any]:
    """Waits until so many summaries were begun and none is in progress. Returns their rows."""
    async with asyncio.timeout(LIMIT):
        while True:
            rows = await rows_of(api, session)
            if len(rows) >= count and all(row["claimed_until"] is None for row in rows):
                return rows
            await asyncio.sleep(0.02)


async def fill(api: RunningApi, session: str, first: str, turns: int = 4) -> str:
    """Fills the context of the model `small` with a conversation that begins with `first`. Returns a mark of it."""
    mark = new_id()
    for turn in range(turns):
        await api.say(session, f"{mark} {turn} {first if turn == 0 else ''} {LONG}\n/say ok")
    return mark


def prompts(bodies: list[dict[str, Any]]) -> list[str]:
    """Returns the messages of the requests that do not ask for a summary, as text."""
    return [text for body in bodies if REQUEST not in (text := json.dumps(body["messages"]))]


async def ui(api: RunningApi, session: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.session(session, format="ui"))["messages"]
    return found


def notices(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in message["parts"] if part["type"] == f"data-{SUMMARY_NOTICE}"]


@pytest.mark.parametrize(("model", "turns"), [("large", 60), ("claude", 40)])
async def test_a_long_conversation_is_read_from_the_cache_and_its_first_fact_stays_known(
    api: RunningApi, url: str, anthropic_url: str, model: str, turns: int
) -> None:
    session, mark = await api.new_session(), new_id()
    for turn in range(turns):
        fact = f"FACT: the cat of {mark} is called Mimi. " if turn == 1 else ""
        text = f"{turn} {fact}{'why is it so ' * 20}\n/say {'because it is. ' * 20}"
        await api.say(session, text, model=model)
    made = await settled(api, session)
    assert len(made) >= turns // 20
    assert {row["attempts"] for row in made} == {1}
    known = prompts(await bodies_of(url if model == "large" else anthropic_url, mark))
    assert f"{turns - 1} why" in known[-1], "the model knows what it read many turns ago"
    assert mark in made[-1]["text"]
    usage = (await api.session(session))["usage"]
    assert usage["cached_tokens"] / usage["input_tokens"] > 0.8, "with those of the summaries themselves"


async def test_the_first_answer_with_a_summary_says_so_in_the_stream_and_in_the_history(
    api: RunningApi, url: str
) -> None:
    session = await api.new_session()
    mark = await fill(api, session, "FACT: I am Ada.")
    (made,) = await settled(api, session)
    first = await api.say(session, f"{mark} who am I?\n/say Ada")
    second = await api.say(session, f"{mark} and now?\n/say Ada")
    kinds = [chunk["type"] for chunk in first.chunks]
    assert kinds[:4] == ["start", "start-step", "data-summary", "text-start"]
    notice = first.chunks[2]
    assert notice == {
        "type": "data-summary",
        "id": f"summary-{made['through']}",
        "data": {"messages": made["messages"], "text": "In short. FACT: I am Ada."},
    }
    assert made["messages"] == made["through"], "each message has one row here"
    assert "data-summary" not in [chunk["type"] for chunk in second.chunks]
    shown = await ui(api, session)
    assert "FACT: I am Ada." in shown[0]["parts"][0]["text"], "the words stay in the history"
    assert [notices(one) for one in shown[:-4]] == [[]] * (len(shown) - 4)
    assert [notices(one) for one in shown[-4:]] == [[], [notice], [], []]
    assert first.text == "Ada"
    known = prompts(await bodies_of(url, mark))
    assert [("FACT: I am Ada." in text, f"{mark} 0" in text) for text in known[-2:]] == [(True, False)] * 2
    assert [row["parts"][0]["type"] for row in (await api.session(session))["messages"]][-3] == "data-summary"


async def test_a_summary_costs_its_session_and_no_answer(api: RunningApi, url: str) -> None:
    session = await api.new_session()
    mark = await fill(api, session, "FACT: I am Ada.")
    await settled(api, session)
    answers = [one["metadata"] for one in await ui(api, session) if one["role"] == "assistant"]
    usage = (await api.session(session))["usage"]
    assert [answer["model"] for answer in answers] == ["small"] * 4
    more = usage["input_tokens"] - sum(answer["usage"]["inputTokens"] for answer in answers)
    (body,) = [body for body in await bodies_of(url, mark) if REQUEST in json.dumps(body["messages"])]
    assert more == sum(len(json.dumps(block)) // 4 for block in [*body["tools"], *body["messages"]])
    assert usage["cost"]["USD"] > sum(answer["cost"]["USD"] for answer in answers) > 0
    words = usage["output_tokens"] - sum(answer["usage"]["outputTokens"] for answer in answers)
    assert words == len(["In", "short.", "FACT:", "I", "am", "Ada."])


async def test_a_summary_that_fails_leaves_the_conversation_trimmed(
    api: RunningApi, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = await api.new_session()
    mark = await fill(api, session, "\n/afresh\n/summary /status 401\n", turns=1)
    for turn in range(7):
        told = await api.say(session, f"{mark} next {turn} {LONG}\n/summary /status 401\n/say ok")
        assert told.chunks[-1]["messageMetadata"]["status"] == "completed"
        await settled(api, session, count=1 if turn > 2 else 0)
    rows = await rows_of(api, session)
    assert [row["text"] for row in rows] == [None] * len(rows)
    assert rows[0]["attempts"] == 3, "the first place is given up"
    asked = [body for body in await bodies_of(url, mark) if REQUEST in json.dumps(body["messages"])]
    assert len(asked) == sum(row["attempts"] for row in rows) <= 6
    assert "earlier messages are left out here" in prompts(await bodies_of(url, mark))[-1]
    assert not any(notices(one) for one in await ui(api, session))
    warned = [record for record in caplog.records if "was not summarised" in record.getMessage()]
    assert len(warned) == len(asked)


async def test_a_summary_that_a_shutdown_cancels_is_paid_and_can_be_made_again_at_once(
    postgres_dsn: str, redis_dsn: str, url: str, anthropic_url: str
) -> None:
    async with running_api(
        postgres_dsn, redis_dsn, executor=False, chat_provider=None, chat_models=models_of(url, anthropic_url)
    ) as api:
        session, mark = await api.new_session(), new_id()
        async with executing(api.resources.settings) as context:
            for turn in range(8):
                does = "/afresh\n/summary /stream 5000 20\n/say ok"
                await api.say(session, f"{mark} {turn} {LONG}\n{does}", model="claude")
            async with asyncio.timeout(LIMIT):
                while not [body for body in await bodies_of(anthropic_url, mark) if REQUEST in json.dumps(body)]:
                    await asyncio.sleep(0.02)  # between two looks of a bounded wait
        (row,) = await rows_of(api, session)
        assert (row["text"], row["claimed_until"], row["attempts"]) == (None, None, 0)
        assert context.metrics.registry.get_sample_value("summaries_total", {"outcome": "cancelled"}) == 1
        answers = [one["metadata"] for one in await ui(api, session) if one["role"] == "assistant"]
        usage = (await api.session(session))["usage"]
        assert usage["input_tokens"] > sum(answer["usage"]["inputTokens"] for answer in answers)


async def test_a_turn_does_not_wait_for_a_summary(api: RunningApi, url: str) -> None:
    session = await api.new_session()
    mark = await fill(api, session, "\n/afresh\n/summary /hang\n")
    async with asyncio.timeout(LIMIT):
        while not await rows_of(api, session):
            await asyncio.sleep(0.02)
    for turn in range(2):
        assert (await api.say(session, f"{mark} more {turn} {LONG}\n/say here")).text == "here"
    (row,) = await rows_of(api, session)
    assert (row["text"], row["attempts"]) == (None, 1)
    assert row["claimed_until"] is not None, "one at a time, and it is still in progress"
    await api.http.delete(f"/api/chat/sessions/{session}")
    assert await rows_of(api, session) == []


async def test_a_branch_without_the_summarised_messages_does_not_use_the_summary(api: RunningApi, url: str) -> None:
    tab = Tab(api)
    mark = new_id()
    for turn in range(4):
        fact = f"FACT: the {mark} is blue." if turn == 0 else ""
        await tab.send(f"m{turn}", f"{turn} {fact} {LONG}\n/say ok")
    await settled(api, tab.session)
    await api.say(tab.session, f"{mark} edit\n/say ok", parent="")
    await api.say(tab.session, f"{mark} on it\n/say ok")
    other = prompts(await bodies_of(url, mark))[-1]
    assert "is blue" not in other
    (found,) = (await tab.alternatives()).values()
    await tab.switch(found["siblings"][0])
    await api.say(tab.session, f"{mark} back\n/say ok")
    assert f"In short. FACT: the {mark} is blue." in prompts(await bodies_of(url, mark))[-1]


async def test_a_pending_operation_is_told_to_the_model_and_its_result_comes_into_its_place(
    api: RunningApi, url: str
) -> None:
    session, mark = await api.new_session(), new_id()
    label = json.dumps({"label": mark})
    told = await api.say(session, f"begin {LONG}\n/tool outside_work {label}\n/then\n/say begun")
    started = next(chunk["output"] for chunk in told.chunks if chunk["type"] == "tool-output-available")
    for turn in range(3):
        await api.say(session, f"{mark} {turn} {LONG}\n/say ok")
    (made,) = await settled(api, session)
    assert len(made["calls"]) == 1
    await api.say(session, f"{mark} still?\n/say yes")
    body = (await bodies_of(url, mark))[-1]
    roles = [message["role"] for message in body["messages"][:4]]
    assert roles == ["system", "user", "assistant", "tool"]
    assert "operation_pending" in body["messages"][3]["content"]
    await complete(api, started["operation_id"], result={"made": "a house"})
    await api.ended(started["task_id"], {})
    await api.say(session, f"{mark} and?\n/say yes")
    continued, later = (await bodies_of(url, mark))[-2:]
    assert "behind the call" in json.dumps(continued["messages"][-1]), "the continuation"
    for body in (continued, later):
        assert [message["role"] for message in body["messages"]].count("tool") == 1
        assert "a house" in body["messages"][3]["content"]

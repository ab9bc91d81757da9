"""The model that answered and its cost: in the stream, in both forms of the history, and for the whole session. And the
fallback, which answers when a model fails before its first event."""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import genai_prices
import pytest

from backend.chat.models import Usage
from backend.model_list import Price
from executor.llm import prices
from executor.llm.prices import PriceTable, cost_at
from tests.fakes.running import fake_server
from tests.integration.running_api import RunningApi, running_api
from tests.plain_http import http_client
from tests.sse_client import StrictClient

LOOK = '/tool get_doc_page {"path": "x"}'


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with fake_server("openai") as url:
        yield url


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, url: str) -> AsyncIterator[RunningApi]:
    at = {"base_url": f"{url}/v1", "key": "k"}
    price = {"input": 10, "output": 100, "cached": 1}
    entries: list[dict[str, Any]] = [
        {**at, "id": "dear", "model": "m-dear", "price": price},
        {**at, "id": "euro", "model": "m-euro", "price": {**price, "currency": "EUR"}},
        {**at, "id": "unknown", "model": "m-unknown"},
        {**at, "id": "safe", "model": "m-safe", "price": price, "fallback": "euro"},
        {"id": "away", "base_url": "http://127.0.0.1:1/v1", "model": "m", "fallback": "dear"},
        {**at, "id": "wrong", "model": "m", "key": "wrong", "fallback": "small"},
        {**at, "id": "small", "model": "m-small", "hidden": True, "max_output_tokens": 55},
    ]
    async with running_api(postgres_dsn, redis_dsn, chat_provider=None, chat_models=json.dumps(entries)) as api:
        yield api


def cost(input_tokens: int, cached: int, output_tokens: int) -> float:
    return round(((input_tokens - cached) * 10 + cached * 1 + output_tokens * 100) / 1_000_000, 9)


def metadata(client: StrictClient) -> dict[str, Any]:
    found: dict[str, Any] = client.chunks[-1]["messageMetadata"]
    return found


async def test_an_answer_says_which_model_gave_it_and_what_it_cost(api: RunningApi) -> None:
    session = await api.new_session()
    told = metadata(await api.say(session, f"{LOOK}\n/then\n/say one two three"))
    used = told["usage"]
    assert (told["model"], used["inputTokens"], used["cachedInputTokens"]) == ("dear", 22, 8)
    assert told["cost"] == {"USD": cost(22, 8, used["outputTokens"])}
    shown = (await api.session(session, format="ui"))["messages"][-1]
    assert shown["metadata"] == told
    rows = [row for row in (await api.session(session))["messages"] if row["role"] == "assistant"]
    assert [(row["model"], row["usage"]["inputTokens"]) for row in rows] == [("dear", 11), ("dear", 11)]
    assert sum(row["cost"]["USD"] for row in rows) == pytest.approx(told["cost"]["USD"])


async def test_a_session_sums_its_costs_by_currency(api: RunningApi) -> None:
    session = await api.new_session()
    first = metadata(await api.say(session, "/say one"))
    second = metadata(await api.say(session, "/say one two", model="euro"))
    third = metadata(await api.say(session, "/say one", model="unknown"))
    assert (second["model"], set(second["cost"])) == ("euro", {"EUR"})
    assert third["model"] == "unknown"
    assert "cost" not in third
    usage = (await api.session(session))["usage"]
    assert usage["cost"] == first["cost"] | second["cost"]
    assert usage["input_tokens"] == 33


async def test_a_cancelled_answer_costs_what_the_provider_told_until_then(api: RunningApi) -> None:
    session = await api.new_session()
    failed = metadata(await api.say(session, "/say one\n/drop"))
    assert (failed["status"], failed["model"]) == ("failed", "dear")


@pytest.mark.parametrize(
    "command",
    ["/status 429 1 40", "/status 401 1", "/status 402 1", "/status 404 1", "/status 503 4", "/hangup 4", "/end 4"],
)
async def test_a_fallback_answers_when_a_model_fails_before_its_first_event(
    api: RunningApi, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The fake fails as often as the first model is asked. The fallback's request is the next one."""
    session = await api.new_session()
    told = await api.say(session, f"{uuid.uuid4().hex}\n{command}\n/say Hello", model="safe")
    assert told.text == "Hello"
    assert (metadata(told)["model"], set(metadata(told)["cost"])) == ("euro", {"EUR"})
    warned = [record for record in caplog.records if "its fallback answers" in record.getMessage()]
    assert [(record.model, record.fallback) for record in warned] == [("safe", "euro")]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("model", "answers"), [("away", "dear"), ("wrong", "small")])
async def test_a_fallback_answers_for_a_server_that_is_away_and_for_a_wrong_key(
    api: RunningApi, url: str, model: str, answers: str
) -> None:
    session, mark = await api.new_session(), uuid.uuid4().hex
    told = await api.say(session, f"{LOOK}\n/then\n/say Hello\n{mark}", model=model)
    assert (told.text, metadata(told)["model"]) == ("Hello", answers)
    assert (await api.session(session))["model"] == model
    async with http_client() as client:
        requests = (await client.get(f"{url}/requests")).json()
    asked = [request["body"]["model"] for request in requests if mark in json.dumps(request["body"])]
    assert asked == (["m", *["m-small"] * 2] if model == "wrong" else ["m-dear"] * 2), "it stays for the whole turn"


async def test_no_other_model_answers_after_the_first_event_or_for_a_filtered_message(api: RunningApi) -> None:
    session = await api.new_session()
    broken = await api.say(session, "/say Hello\n/drop 1", model="safe")
    assert (broken.text.strip(), metadata(broken)["status"], metadata(broken)["model"]) == ("Hello", "failed", "safe")
    filtered = await api.say(await api.new_session(), f"{uuid.uuid4().hex}\n/status 422 1\n/say Hello", model="safe")
    assert metadata(filtered)["status"] == "failed"
    assert filtered.text == ""


async def test_the_table_knows_hosted_models_and_no_others() -> None:
    table, used = PriceTable(), Usage(1_000_000, 100_000, 0, 400_000)
    url = "https://api.anthropic.com"
    assert table.cost(url, "claude-sonnet-4-5", used) == {}
    await table.load()
    assert table.cost(url, "claude-sonnet-4-5", used)["USD"] > table.cost(url, "claude-haiku-4-5", used)["USD"] > 0
    assert table.cost(url, "claude-sonnet-4-5", Usage(5, 5, 0, 9))["USD"] > 0
    for known, model in ((url, "no-model"), ("http://127.0.0.1:8080/v1", "claude-sonnet-4-5")):
        assert table.cost(known, model, used) == {}


def replace_table(monkeypatch: pytest.MonkeyPatch, calc_price: Callable[..., Any]) -> None:
    table = SimpleNamespace(Usage=genai_prices.Usage, calc_price=calc_price)
    monkeypatch.setitem(sys.modules, "watched_prices", table)
    monkeypatch.setattr(prices, "TABLE", "watched_prices")


async def test_the_first_price_which_is_slow_is_made_in_the_loading_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def calc_price(*given: Any, **named: Any) -> Any:
        threads.append(threading.get_ident())
        return genai_prices.calc_price(*given, **named)

    replace_table(monkeypatch, calc_price)
    await PriceTable().load()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_tokens_without_a_price_leave_their_model_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def calc_price(tokens: Any, **named: Any) -> Any:
        if tokens.output_tokens == 13:
            raise ValueError("no price for these")
        return genai_prices.calc_price(tokens, **named)

    replace_table(monkeypatch, calc_price)
    table, url = PriceTable(), "https://api.anthropic.com"
    await table.load()
    for odd in (Usage(5, 13, 0, 0), Usage(-1, 5, 0, 0)):
        assert table.cost(url, "claude-sonnet-4-5", odd) == {}
    assert table.cost(url, "claude-sonnet-4-5", Usage(5, 5, 0, 0))["USD"] > 0


def test_tokens_of_a_cache_have_their_own_price() -> None:
    used = Usage(1_000_000, 1_000_000, 0, 400_000)
    assert cost_at(Price(input=10, output=100, cached=1), used) == {"USD": 106.4}
    assert cost_at(Price(input=10, output=100), used) == {"USD": 110}
    assert cost_at(Price(input=0, output=0, currency="EUR"), used) == {"EUR": 0}

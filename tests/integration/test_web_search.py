"""The three search services, and how their failures are told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from backend.config import Settings
from executor.web import search
from executor.web.failures import WebFailure
from executor.web.search import open_searcher, service_of
from executor.web.search_services import Brave, FoundPage, SearXNG, Service, Tavily
from tests.fakes.search_services import KEY, SearchServices, search_services

SERVICES = ["searxng", "brave", "tavily"]


@pytest.fixture
async def services() -> AsyncIterator[SearchServices]:
    async with search_services() as services:
        yield services


def service(services: SearchServices, name: str, key: str = KEY) -> Service:
    if name == "searxng":
        return SearXNG(services.url("/searxng/"))
    return (Brave if name == "brave" else Tavily)(key, services.url(f"/{name}"))


async def found(services: SearchServices, name: str, query: str, count: int = 3, key: str = KEY) -> list[FoundPage]:
    async with open_searcher(service(services, name, key)) as searcher:
        return await searcher.search(query, count)


async def failure(services: SearchServices, name: str, query: str, key: str = KEY) -> WebFailure:
    with pytest.raises(WebFailure) as raised:
        await found(services, name, query, key=key)
    return raised.value


@pytest.mark.parametrize("name", SERVICES)
async def test_pages_are_found_each_once_and_only_those_of_the_web(services: SearchServices, name: str) -> None:
    pages = await found(services, name, "tides & moon – ä")
    assert services.queries == ["tides & moon – ä"]
    assert pages[0].url == "https://example.com/0"
    assert (pages[0].title, pages[0].snippet[:10], len(pages[0].snippet)) == ("Page 0", "Snippet 0 ", 500)
    assert len({page.url for page in pages}) == len(pages) <= 3
    assert all(page.url.startswith("https://") for page in pages)
    assert await found(services, name, "nothing") == []


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("/401", "authentication"), ("/403", "authentication"), ("/429", "rate_limited"), ("/400", "bad_request"),
        ("/500", "unavailable"), ("/503", "unavailable"), ("/302", "unavailable"), ("/odd", "unavailable"),
        ("/big", "unavailable"), ("/cut", "unavailable"),
    ],
)  # fmt: skip
async def test_failures_have_codes(services: SearchServices, name: str, query: str, code: str) -> None:
    failed = await failure(services, name, query)
    assert failed.code == code
    assert ("in 7 s" in str(failed)) == (code == "rate_limited")


@pytest.mark.parametrize("name", ["brave", "tavily"])
async def test_a_wrong_key_is_told_to_the_operator_without_it(
    services: SearchServices, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        failed = await failure(services, name, "x", "a-wrong-key")
    assert failed.code == "authentication"
    assert "a-wrong-key" not in caplog.text + str(failed) + repr([vars(record) for record in caplog.records])


async def test_an_account_that_is_used_up_has_a_code_of_its_own(services: SearchServices) -> None:
    for name, query in (("tavily", "/432"), ("tavily", "/433"), ("brave", "/quota")):
        assert (await failure(services, name, query)).code == "quota_exceeded"


async def test_brave_gets_no_more_words_than_it_takes(services: SearchServices) -> None:
    assert await found(services, "brave", "w " * 60)
    assert len(services.queries[0].split()) == 50


async def test_a_service_that_does_not_answer_is_given_up(
    services: SearchServices, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setattr(search, "LIMIT", 0.2)
    assert (await failure(services, "searxng", "/slow")).code == "timeout"
    services.port = free_port
    assert (await failure(services, "searxng", "x")).code == "unavailable"


def test_the_first_service_that_is_set_is_used() -> None:
    assert not Settings().searches_web
    settings = {"web_search_url": "http://searx:8080", "brave_search_api_key": "b", "tavily_api_key": "t"}
    for name in ("searxng", "brave", "tavily"):
        chosen = Settings(**settings)  # type: ignore[arg-type]
        assert chosen.searches_web
        assert service_of(chosen).name == name
        settings.pop(next(iter(settings)))

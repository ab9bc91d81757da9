"""Turns whose model searches the web and reads a page of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from backend.config import Settings
from backend.outside_addresses import OutsideAddresses
from executor.tools import open_toolbox, own_tools
from executor.web import Web, open_web
from executor.web.fetching import open_fetcher
from executor.web.search import open_searcher
from executor.web.search_services import SearXNG
from tests.fakes.search_services import search_services
from tests.fakes.site import Site, moved, page, site
from tests.integration.running_api import RunningApi, outputs_in, running_api


@dataclass
class Rig:
    api: RunningApi
    site: Site
    web: Web


@pytest.fixture(scope="module")
async def rig(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[Rig]:
    async with (
        site(
            {"/": page("<title>The page</title><p>Words.</p>"), "/to": moved("/"), "/no": page("no", status=403)}
        ) as one,
        search_services() as services,
        open_fetcher(OutsideAddresses("127.0.0.0/8"), {one.port}) as fetcher,
        open_searcher(SearXNG(services.url("/searxng"))) as searcher,
    ):
        web = Web(fetcher, searcher)
        async with running_api(
            postgres_dsn, redis_dsn, toolbox=lambda settings: open_toolbox(settings, web=web)
        ) as api:
            yield Rig(api, one, web)


async def test_a_page_is_read_and_named_as_a_source_of_the_answer(rig: Rig) -> None:
    mine = rig.api.as_user()
    session = await rig.api.new_session(mine)
    call = f'/tool web_fetch {{"url": "{rig.site.url("/to")}"}}'
    said = await rig.api.say(session, f"{call}\n/then\n/say It says words.\n{call}\n/then\n/say Done.", mine)
    (first, second) = outputs_in(await rig.api.session(session, mine))
    assert first == second
    session_id = first.pop("session_id")
    assert session_id == session
    assert first == {
        "type": "web_fetch", "message": "Read The page.", "url": rig.site.url("/"), "title": "The page",
        "status_code": 200, "content_type": "text/html", "content": "Words.", "truncated": False,
    }  # fmt: skip
    sources = [chunk for chunk in said.chunks if chunk["type"] == "source-url"]
    assert [(source["url"], source["title"]) for source in sources] == [(rig.site.url("/"), "The page")]
    answer = (await rig.api.session(session, mine, format="ui"))["messages"][-1]
    assert [part["url"] for part in answer["parts"] if part["type"] == "source-url"] == [rig.site.url("/")]


async def test_a_refusal_of_a_site_is_told_and_is_no_source(rig: Rig) -> None:
    session = await rig.api.new_session()
    calls = [f'/tool web_fetch {{"url": "{url}"}}' for url in (rig.site.url("/no"), "http://10.0.0.1/", "no")]
    rig.web.outcomes.update(dict.fromkeys(rig.web.outcomes, 0))
    said = await rig.api.say(session, "\n".join(calls))
    assert {key: number for key, number in rig.web.outcomes.items() if number} == {
        ("web_fetch", "completed"): 1, ("web_fetch", "refused"): 2,
    }  # fmt: skip
    no, private, wrong = outputs_in(await rig.api.session(session))
    assert (no["status_code"], no["message"], no["content"]) == (403, "The site answered 403 Forbidden.", "no")
    assert (private["type"], private["error"]) == ("error", "invalid_url")  # the port is not among those of this test
    assert wrong["error"] == "invalid_url"
    assert not [chunk for chunk in said.chunks if chunk["type"] == "source-url"]


async def test_a_search_finds_pages(rig: Rig) -> None:
    session = await rig.api.new_session()
    calls = [f'/tool web_search {{"query": "{query}", "count": {count}}}' for query, count in
             (("tides", 2), ("nothing", 1), ("/429", 1), ("x", 11))]  # fmt: skip
    await rig.api.say(session, "\n".join(calls))
    found, none, limited, wrong = outputs_in(await rig.api.session(session))
    assert (found["type"], found["count"], found["query"]) == ("web_search_results", 2, "tides")
    assert found["results"][0]["url"] == "https://example.com/0"
    assert none["type"] == "no_results"
    assert (limited["type"], limited["error"]) == ("error", "rate_limited")
    assert wrong["type"] == "input_validation_error"


async def test_only_what_is_turned_on_is_offered() -> None:
    async def offered(**settings: object) -> set[str]:
        given = Settings(**settings)  # type: ignore[arg-type]
        async with open_web(given) as web:
            return {tool.name for tool in own_tools(given, web=web)} & {"web_fetch", "web_search"}

    assert await offered() == {"web_fetch"}
    assert await offered(web_fetch=False) == set()
    assert await offered(web_fetch=False, web_search_url="http://searx:8080") == {"web_search"}
    assert await offered(tavily_api_key="x") == {"web_fetch", "web_search"}

"""Feature requests as issues at GitHub, against a fake of its API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.config import Settings, load_settings
from backend.errors import ConfigError
from backend.json_client.calls import CallLimits
from executor.tools.github_issues import GitHubFailure, GitHubIssues
from tests.fakes.github_server import REPOSITORY, TOKEN, GitHub, github_server
from tests.integration.running_api import RunningApi, new_id, new_user, running_api
from tests.integration.test_api_library import called
from tests.servers.ports import free_port
from tests.speed import limit

ODD = "@someone see #12 and https://github.com/o/r/issues/1\n```\ncode\n```` ![x](http://a/b.png)\nCloses #3"


@pytest.fixture
async def github() -> AsyncIterator[GitHub]:
    async with github_server() as server:
        yield server


def settings_for(url: str, **changes: str) -> dict[str, Any]:
    token = {"feature_requests_github_token": TOKEN}
    return {"feature_requests_github": REPOSITORY, "feature_requests_github_url": url, **token, **changes}


@pytest.fixture
def issues(github: GitHub) -> GitHubIssues:
    return GitHubIssues(Settings(**settings_for(github.url + "/")))


@pytest.fixture
async def api(postgres_dsn: str, redis_dsn: str, github: GitHub) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, **settings_for(github.url)) as api:
        yield api


async def test_an_issue_is_made_once_and_its_text_is_a_block_of_code(github: GitHub, issues: GitHubIssues) -> None:
    made = await issues.create("a1", "Dance", ODD)
    assert await issues.create("a1", "Dance", ODD) == made
    assert (await issues.create("a2", "Dance", "")).number == 2
    [first, second] = github.issues
    assert first["body"].startswith("`````text\n@someone")
    assert first["body"].count("\n`````\n") == 1
    assert second["body"].startswith("(no description)")
    assert first["labels"] == ["feature-request"]
    assert (made.url, made.state) == (f"https://github.example/{REPOSITORY}/issues/1", "open")


async def test_an_issue_whose_answer_was_lost_is_found_again(github: GitHub, issues: GitHubIssues) -> None:
    github.fault = "cut"
    with pytest.raises(GitHubFailure, match="cannot be reached"):
        await issues.create("a1", "Dance", "")
    github.fault = None
    assert (await issues.create("a1", "Dance", "")).number == 1
    assert len(github.issues) == 1


async def test_the_search_has_all_words_and_no_qualifiers_of_the_user(github: GitHub, issues: GitHubIssues) -> None:
    await issues.create("a1", "Dance with wolves", "at night")
    assert await issues.search("dance", 10) == [], "the search learns of it later"
    github.index()
    [found] = await issues.search('WOLVES repo:other/one "dance" -night', 10) or [None]
    assert found is None, "the words `repo`, `other` and `one` are not in it"
    [found] = await issues.search("Wolves, dance!", 10)
    assert (found.title, found.text) == ("Dance with wolves", "at night")
    assert await issues.search("?!", 10) == []
    assert await issues.search("dance " * 200, 10) != []


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (401, {}, "token"),
        (403, {}, "may not do that"),
        (403, {"x-ratelimit-remaining": "0"}, "no more requests"),
        (403, {"retry-after": "60"}, "no more requests"),
        (429, {}, "no more requests"),
        (301, {"location": "https://x.example"}, "moved"),
        (404, {}, "no such repository"),
        (410, {}, "no issues"),
        (503, {}, "status 503"),
        (200, {}, "something else"),
    ],
)
async def test_failures_are_told_apart(
    github: GitHub, issues: GitHubIssues, status: int, headers: dict[str, str], words: str
) -> None:
    github.fault = (status, headers)
    for call in (issues.create("a", "t", ""), issues.search("t", 10)):
        with pytest.raises(GitHubFailure, match=words) as raised:
            await call
        assert TOKEN not in str(raised.value)


async def test_the_tools_make_issues_and_find_them(api: RunningApi, github: GitHub) -> None:
    user, word = new_user(), new_id()
    made = await called(api, user, "create_feature_request", title=f"Dance {word}", description="slowly")
    assert made["issue_url"] == github.issues[0]["html_url"]
    assert "issue #1" in made["message"]
    assert user not in json.dumps(github.issues)
    first = await called(api, user, "search_feature_requests", query=word)
    assert first["results"][0]["id"] == made["issue_id"], "that of the database, until GitHub finds it"
    github.index()
    then = await called(api, user, "search_feature_requests", query=word)
    [found] = then["results"]
    assert (found["id"], found["url"], found["description"]) == ("#1", made["issue_url"], "slowly")


async def test_without_github_requests_are_stored_and_found_all_the_same(api: RunningApi, github: GitHub) -> None:
    github.fault = (503, {})
    user, word = new_user(), new_id()
    made = await called(api, user, "create_feature_request", title=f"Dance {word}")
    assert (made["type"], made.get("issue_url")) == ("feature_request_created", None)
    assert "not at GitHub" in made["message"]
    found = await called(api, user, "search_feature_requests", query=word)
    assert found["results"][0]["id"] == made["issue_id"]


async def test_an_answer_that_never_ends_is_left(
    github: GitHub, issues: GitHubIssues, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.fault = "drip"
    monkeypatch.setattr("executor.tools.github_issues.LIMITS", CallLimits(total=limit(1)))
    async with asyncio.timeout(limit(20)):
        with pytest.raises(GitHubFailure, match="TimeoutError"):
            await issues.search("x", 1)


async def test_a_server_that_is_away_is_told(github: GitHub) -> None:
    issues = GitHubIssues(Settings(**settings_for(f"http://127.0.0.1:{free_port()}")))
    with pytest.raises(GitHubFailure, match="cannot be reached"):
        await issues.search("x", 1)


def test_a_repository_needs_a_token_and_a_name() -> None:
    with pytest.raises(ConfigError, match="FEATURE_REQUESTS_GITHUB_TOKEN"):
        load_settings(files=(), feature_requests_github=REPOSITORY)
    with pytest.raises(ConfigError, match="FEATURE_REQUESTS_GITHUB"):
        load_settings(files=(), feature_requests_github="https://github.com/o/r", feature_requests_github_token="t")

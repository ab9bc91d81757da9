"""Tests of the library over HTTP, and of the tool that searches it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.chat.store.library import SavedAgent
from backend.ids import new_library_agent_id
from tests.integration.agents import an_agent
from tests.integration.running_api import RunningApi, new_id, new_user, running_api

AGENTS = "/api/library/agents"


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn) as resources:
        yield resources


async def saved_by(api: RunningApi, user: str, **changes: Any) -> SavedAgent:
    async with api.resources.database.connection() as c:
        return await an_agent(c, user, **changes)


def assert_problem(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_agent_is_read_by_either_id(api: RunningApi) -> None:
    user = new_user()
    saved = await saved_by(api, user, more={"secret": "its owner may see it"})
    summary = {
        "id": saved.agent.id,
        "graph_id": "graph-1",
        "name": "Mail sorter",
        "description": "Sorts what comes in",
        "version": 1,
    }
    listed = (await api.http.get(AGENTS, headers=api.as_user(user))).json()
    assert listed["total"] == 1
    times = {name: listed["agents"][0].pop(name) for name in ("created_at", "updated_at")}
    assert listed["agents"] == [summary]
    for id in (saved.agent.id, "graph-1"):
        answer = await api.http.get(f"{AGENTS}/{id}", headers=api.as_user(user))
        assert answer.status_code == 200
        more = {"node_count": 2, "link_count": 1, "published_version": None, "graph": saved.graph}
        assert answer.json() == {**summary, **times, **more}


async def test_versions_are_listed_newest_first_and_read_by_number(api: RunningApi) -> None:
    user = new_user()
    mine = api.as_user(user)
    saved = [await saved_by(api, user, name=f"name {n}", task_id=f"task {n}") for n in (1, 2, 3)]
    path = f"{AGENTS}/{saved[0].agent.id}/versions"
    versions = (await api.http.get(path, headers=mine)).json()
    assert [(one["version"], one["task_id"]) for one in versions["versions"]] == [
        (3, "task 3"), (2, "task 2"), (1, "task 1"),
    ]  # fmt: skip
    assert versions["total"] == 3
    page = (await api.http.get(path, params={"limit": 1, "offset": 1}, headers=mine)).json()
    assert page == {"versions": [versions["versions"][1]], "total": 3}
    for n in (1, 2, 3):
        one = (await api.http.get(f"{path}/{n}", headers=mine)).json()
        assert one == {**versions["versions"][3 - n], "graph": saved[n - 1].graph}
    assert_problem(await api.http.get(f"{path}/4", headers=mine), 404, "agent_not_found")
    for invalid in ("0", "-1", "x", "1.5", "2147483648", "9" * 30):
        assert_problem(await api.http.get(f"{path}/{invalid}", headers=mine), 422, "validation_error")


async def test_an_earlier_version_becomes_the_newest_one_once(api: RunningApi) -> None:
    user = new_user()
    mine = api.as_user(user)
    for n in (1, 2):
        saved = await saved_by(api, user, name=f"name {n}")
    path = f"{AGENTS}/{saved.agent.id}"
    for _ in ("restores", "changes nothing"):
        answer = await api.http.post(f"{path}/versions/1/restore", headers=mine)
        assert (answer.status_code, answer.json()["version"], answer.json()["name"]) == (200, 3, "name 1")
    graphs = [(await api.http.get(f"{path}/versions/{n}", headers=mine)).json()["graph"] for n in (1, 3)]
    assert {**graphs[0], "version": 3} == graphs[1]
    assert_problem(await api.http.post(f"{path}/versions/9/restore", headers=mine), 404, "agent_not_found")
    foreign = await api.http.post(f"{path}/versions/1/restore", headers=api.as_user())
    assert_problem(foreign, 404, "agent_not_found")


async def test_an_exported_agent_is_imported_by_another_user_and_again_as_the_next_version(api: RunningApi) -> None:
    user, other = new_user(), api.as_user()
    saved = await saved_by(api, user)
    for version in (1, 2):
        answer = await api.http.post(AGENTS, json=saved.graph, headers=other)
        assert (answer.status_code, answer.json()["version"]) == (201, version), answer.text
        assert answer.json()["graph"] == {**saved.graph, "version": version}
    assert answer.json()["id"] != saved.agent.id
    assert (await api.http.get(f"{AGENTS}/{saved.agent.id}", headers=api.as_user(user))).json()["version"] == 1
    assert_problem(await api.http.post(AGENTS, json={"nodes": 1}, headers=other), 422, "invalid_agent")
    assert_problem(await api.http.post(AGENTS, json=[], headers=other), 422, "validation_error")
    assert_problem(await api.http.post(AGENTS, json=saved.graph), 401, "unauthenticated")
    many = {"nodes": [{"id": f"n{n}", "a": 1, "b": 2, "c": 3, "d": 4} for n in range(1_000)], "links": []}
    many["links"] = [{"id": f"l{n}", "source_id": "n0", "sink_id": "n1"} for n in range(5_000)]
    assert (await api.http.post(AGENTS, json=many, headers=other)).status_code == 201


async def test_a_published_agent_is_found_and_copied_by_others_until_it_is_unpublished(api: RunningApi) -> None:
    owner, other = api.as_user(user := new_user()), api.as_user()
    node = {"id": "in", "block_id": "b1", "input_default": {"api_key": "hunter2", "url": "x"}}
    for n in (1, 2):
        words = "Reads postgres://me:hunter2@host/db"
        saved = await saved_by(api, user, name=f"Agent {n} of {user}", description=words, nodes=[node], links=[])
    own, shared = f"{AGENTS}/{saved.agent.id}", f"/api/library/published/{saved.agent.id}"
    assert_problem(await api.http.get(shared, headers=other), 404, "agent_not_found")
    assert_problem(await api.http.put(f"{own}/publication", json={}, headers=other), 404, "agent_not_found")
    assert_problem(await api.http.put(f"{own}/publication", json={"version": 9}, headers=owner), 404, "agent_not_found")
    for version in (1, 2):
        answer = await api.http.put(f"{own}/publication", json={"version": version}, headers=owner)
        assert (answer.json()["version"], answer.json()["mine"]) == (version, True), answer.text
    assert (await api.http.get(own, headers=owner)).json()["published_version"] == 2
    listed = (await api.http.get("/api/library/published", params={"q": user}, headers=other)).json()
    assert (listed["total"], listed["agents"][0]["name"]) == (1, f"Agent 2 of {user}")
    assert listed["agents"][0]["mine"] is False
    assert listed["agents"][0]["description"] == "Reads postgres://[REDACTED]@host/db"
    read = (await api.http.get(shared, headers=other)).json()
    assert read["graph"]["nodes"][0]["input_default"] == {"url": "x"}
    copy = (await api.http.post(f"{shared}/copy", headers=other)).json()
    assert (copy["version"], copy["name"], copy["graph_id"] != saved.agent.graph_id) == (1, read["name"], True)
    assert_problem(await api.http.get("/api/library/published"), 401, "unauthenticated")
    assert_problem(await api.http.delete(f"{own}/publication", headers=other), 404, "agent_not_found")
    for _ in ("takes it back", "changes nothing"):
        assert (await api.http.delete(f"{own}/publication", headers=owner)).status_code == 204
    assert_problem(await api.http.post(f"{shared}/copy", headers=other), 404, "agent_not_found")
    assert (await api.http.put(f"{own}/publication", json={}, headers=owner)).status_code == 200
    assert (await api.http.delete("/api/chat/user", headers=owner)).status_code == 204
    assert_problem(await api.http.get(shared, headers=other), 404, "agent_not_found")
    assert (await api.http.get(f"{AGENTS}/{copy['id']}", headers=other)).status_code == 200


async def test_a_deleted_agent_is_not_found(api: RunningApi) -> None:
    user = new_user()
    mine = api.as_user(user)
    saved, kept = await saved_by(api, user), await saved_by(api, user, id="kept")
    assert (await api.http.delete(f"{AGENTS}/{saved.agent.id}", headers=mine)).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("GET", "/versions/1")):
        gone = await api.http.request(method, f"{AGENTS}/{saved.agent.id}{path}", headers=mine)
        assert_problem(gone, 404, "agent_not_found")
    listed = (await api.http.get(AGENTS, headers=mine)).json()
    assert [one["id"] for one in listed["agents"]] == [kept.agent.id]


async def test_agents_are_listed_in_pages_and_searched(api: RunningApi) -> None:
    user = new_user()
    mine = api.as_user(user)
    for name in ("first", "second", "100% third"):
        await saved_by(api, user, id=name, name=name)

    async def listed(**params: Any) -> tuple[list[str], int]:
        body = (await api.http.get(AGENTS, params=params, headers=mine)).json()
        return [one["name"] for one in body["agents"]], body["total"]

    assert await listed() == (["100% third", "second", "first"], 3)
    assert await listed(limit=1, offset=1) == (["second"], 3)
    assert await listed(offset=1_000_000) == ([], 3)
    assert await listed(q="%") == (["100% third"], 1)
    assert await listed(q="SORTS", limit=1) == (["100% third"], 3)
    assert await listed(q="") == await listed()


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=1e9", "offset=-1", "offset=99999999999999999999", "q=%00",
              "q=" + "x" * 201],
)  # fmt: skip
async def test_invalid_page_parameters_are_refused(api: RunningApi, query: str) -> None:
    answer = await api.http.get(f"{AGENTS}?{query}", headers=api.as_user())
    assert_problem(answer, 422, "invalid_unicode" if "%00" in query else "validation_error")


@pytest.mark.parametrize("id", ["x" * 129, "a%00b", "%0a", "%ff", "ä" * 128, "' OR 1=1 --", "%", "_"])
async def test_an_unknown_agent_id_is_not_found(api: RunningApi, id: str) -> None:
    user = new_user()
    await saved_by(api, user)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("GET", "/versions/1")):
        answer = await api.http.request(method, f"{AGENTS}/{id}{path}", headers=api.as_user(user))
        assert_problem(answer, 404, "agent_not_found")
    assert (await api.http.get(AGENTS, headers=api.as_user(user))).json()["total"] == 1


async def test_an_anonymous_caller_has_no_library(api: RunningApi) -> None:
    saved = await saved_by(api, new_user())
    assert (await api.http.get(AGENTS)).json() == {"agents": [], "total": 0}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("GET", "/versions/1")):
        for id in (saved.agent.id, new_library_agent_id()):
            assert_problem(await api.http.request(method, f"{AGENTS}/{id}{path}"), 404, "agent_not_found")
    assert (await api.http.get(AGENTS, headers={"authorization": "Bearer x"})).status_code == 401


async def test_the_library_handles_paths_methods_and_origins_like_the_chat(api: RunningApi) -> None:
    for path in (
        "/api/library",
        f"{AGENTS}/",
        f"{AGENTS}/x/y",
        f"{AGENTS}/x/versions/1/z",
        "/api/library/openapi.json",
    ):
        assert_problem(await api.http.get(path), 404, "not_found")
    for method, path, allowed in (
        ("PUT", AGENTS, {"GET", "HEAD", "POST"}),
        ("PATCH", f"{AGENTS}/x", {"GET", "HEAD", "DELETE"}),
    ):
        wrong = await api.http.request(method, path, json={})
        assert_problem(wrong, 405, "method_not_allowed")
        assert set(wrong.headers["allow"].split(", ")) == allowed
    origin = "https://chat.example.com"
    answer = await api.http.get(f"{AGENTS}/x", headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    asking = {"origin": origin, "access-control-request-method": "DELETE"}
    preflight = await api.http.options(f"{AGENTS}/x", headers=asking)
    assert (preflight.status_code, "DELETE" in preflight.headers["access-control-allow-methods"]) == (204, True)
    text = (await api.http.get("/metrics")).text
    assert 'http_requests_total{method="GET",route="/api/library/agents/{agent_id}",status="404"}' in text


# --- find_library_agent -------------------------------------------------------------------------------------------


async def found(api: RunningApi, query: str, user: str | None) -> dict[str, Any]:
    return await called(api, user, "find_library_agent", query=query)


async def called(api: RunningApi, user: str | None, tool: str, **arguments: str) -> dict[str, Any]:
    """Calls a tool in a new session and returns its output as the conversation shows it."""
    headers = api.as_user(user) if user is not None else None
    session = await api.new_session(headers)
    await api.say(session, f"/tool {tool} {json.dumps(arguments)}", headers)
    rows = (await api.session(session, headers))["messages"]
    results = [part for row in rows if row["role"] == "tool" for part in row["parts"]]
    assert len(results) == 1
    output: dict[str, Any] = results[0]["output"]
    return output


async def test_the_model_finds_agents_that_others_have_published(api: RunningApi) -> None:
    owner, other, word = new_user(), new_user(), new_id()
    saved = await saved_by(api, owner, name=f"Tells {word}")
    assert (await called(api, other, "find_agent", query=word))["type"] == "no_results"
    path = f"{AGENTS}/{saved.agent.id}/publication"
    assert (await api.http.put(path, json={}, headers=api.as_user(owner))).status_code == 200
    answer = await called(api, other, "find_agent", query=word)
    assert [(one["id"], one["source"]) for one in answer["agents"]] == [(saved.agent.id, "published")]
    assert (await called(api, None, "find_agent", query=word))["type"] == "need_login"


async def test_feature_requests_are_stored_found_by_everyone_and_deleted_with_their_user(api: RunningApi) -> None:
    user, other, word = new_user(), new_user(), new_id()
    assert (await called(api, other, "search_feature_requests", query=word))["type"] == "no_results"
    made = await called(api, user, "create_feature_request", title=f"Dance {word}", description="In a \0 circle")
    assert (made["type"], made["issue_title"]) == ("feature_request_created", f"Dance {word}")
    answer = await called(api, other, "search_feature_requests", query=f"please {word}")
    assert [(one["id"], one["title"]) for one in answer["results"]] == [(made["issue_id"], f"Dance {word}")]
    assert user not in json.dumps(answer)
    assert (await called(api, None, "create_feature_request", title="x"))["type"] == "need_login"
    assert (await api.http.delete("/api/chat/user", headers=api.as_user(user))).status_code == 204
    assert (await called(api, other, "search_feature_requests", query=word))["type"] == "no_results"


async def test_the_model_finds_only_agents_of_its_user(api: RunningApi) -> None:
    user = new_user()
    saved = await saved_by(api, user, description="long " * 1_000)
    await saved_by(api, new_user(), id="foreign")
    answer = await found(api, "mail", user)
    assert (answer["type"], answer["count"], answer["title"]) == ("agents_found", 1, "1 agent in your library")
    (shown,) = answer["agents"]
    assert len(shown.pop("description")) == 500
    assert shown == {
        "id": saved.agent.id,
        "name": "Mail sorter",
        "graph_id": "graph-1",
        "version": 1,
        "library_agent_link": f"/library/agents/{saved.agent.id}",
    }
    assert (await found(api, "graph-1", user))["count"] == 1
    for nothing in ("foreign", "zebra"):
        assert (await found(api, nothing, user))["type"] == "no_results"


async def test_the_model_is_told_that_an_anonymous_caller_must_log_in(api: RunningApi) -> None:
    answer = await found(api, "mail", None)
    assert answer["type"] == "need_login"
    assert answer["message"]

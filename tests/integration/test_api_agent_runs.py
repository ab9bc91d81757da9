"""Runs and schedules of agents over HTTP, without a conversation. The platform is a fake of its protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from backend.api import platform_access
from backend.api.routes import user
from backend.chat.flows.delete import delete_user
from backend.chat.store import library
from backend.platform.client import Platform
from tests.fakes.agent_platform import FakePlatform, fake_platform
from tests.integration.agents import an_agent
from tests.integration.running_api import RunningApi, new_user, running_api
from tests.integration.test_agent_runs import SCHEMA

LIBRARY = "/api/library"


@pytest.fixture(scope="module")
async def platform() -> AsyncIterator[FakePlatform]:
    async with fake_platform() as fake:
        yield fake


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, platform: FakePlatform) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, executor=False, **platform.settings) as api:
        yield api


@pytest.fixture(autouse=True)
def unplanned(platform: FakePlatform) -> Iterator[None]:
    yield
    platform.answers.clear()
    platform.ends_at_once = False


class Owner:
    """A user with an agent that adds two numbers."""

    def __init__(self, api: RunningApi, agent_id: str, user: str) -> None:
        self.api, self.agent_id, self.user = api, agent_id, user
        self.path = f"{LIBRARY}/agents/{agent_id}"

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {**self.api.as_user(self.user), **request.pop("headers", {})}
        return await self.api.http.request(method, path, headers=headers, **request)

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def begin(self, key: str | None = None, **inputs: Any) -> httpx.Response:
        headers = {} if key is None else {"idempotency-key": key}
        return await self.ask("POST", f"{self.path}/runs", json={"inputs": inputs}, headers=headers)

    async def schedule(self, **changes: Any) -> httpx.Response:
        body = {"cron": "0 8 * * *", "timezone": "Europe/Berlin", "inputs": {"a": 2, "b": 3}, **changes}
        return await self.ask("POST", f"{self.path}/schedules", json=body)


@pytest.fixture
async def owner(api: RunningApi) -> Owner:
    return await an_owner(api)


async def an_owner(api: RunningApi) -> Owner:
    user = new_user()
    async with api.resources.database.connection() as c:
        saved = await an_agent(c, user, id=f"graph-of-{user}", input_schema=SCHEMA)
    return Owner(api, saved.agent.id, user)


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def test_an_agent_runs_without_a_conversation_and_shows_its_steps(owner: Owner, platform: FakePlatform) -> None:
    inputs = await owner.get(f"{owner.path}/inputs")
    assert (inputs["input_schema"], set(inputs["property_order"])) == (SCHEMA, {"a", "b"})
    begun = (await owner.begin("once", a=2, b=3)).json()
    assert (await owner.begin("once", a=2, b=3)).json() == begun, "the same key is the same run"
    run = platform.runs[begun["execution_id"]]
    assert (run.user, run.body) == (owner.user, {"node_input": {"a": 2, "b": 3}})
    running = await owner.get(f"{owner.path}/runs/{run.id}")
    assert (running["status"], running["version"]) == ("running", 1)
    assert [node["status"] for node in running["nodes"]] == ["completed", "running"]
    platform.end(run)
    (listed,) = (await owner.get(f"{owner.path}/runs"))["runs"]
    assert (listed["status"], listed["outputs"]) == ("completed", {"sum": [5]})
    assert "nodes" not in listed


async def test_runs_with_outputs_of_megabytes_are_listed(owner: Owner, platform: FakePlatform) -> None:
    for number in range(4):
        run = platform.runs[(await owner.begin(a=number, b=0)).json()["execution_id"]]
        run.status, run.output = "completed", {"text": ["x" * 3_000_000]}
    runs = (await owner.get(f"{owner.path}/runs"))["runs"]
    assert [len(run["outputs"]["text"][0]) for run in runs] == [3_000_000] * 2


async def test_inputs_that_are_missing_or_wrong_are_named_by_field(owner: Owner, platform: FakePlatform) -> None:
    answer = await owner.begin(a="two", c=1)
    assert_problem(answer, 422, "invalid_inputs")
    assert {field["path"]: field["message"] for field in answer.json()["fields"]} == {
        "body.inputs.a": "must be of type number",
        "body.inputs.b": "is required",
        "body.inputs.c": "is not one of its inputs",
    }
    details = [{"field": "a", "message": "is odd"}]
    platform.answers["POST 1"] = [(422, {"error": "No.", "code": "invalid_input", "details": details})]
    refused = await owner.begin(a=1, b=3)
    assert_problem(refused, 422, "invalid_inputs")
    assert refused.json()["fields"] == [{"path": "body.inputs.a", "message": "is odd"}]
    assert [run for run in platform.runs.values() if run.user == owner.user] == []


async def test_a_run_can_be_cancelled(owner: Owner) -> None:
    id = (await owner.begin(a=1, b=2)).json()["execution_id"]
    stopped = await owner.ask("POST", f"{owner.path}/runs/{id}/cancel")
    assert (stopped.status_code, stopped.json()["status"]) == (200, "cancelled")


async def test_a_schedule_is_made_seen_paused_and_deleted(owner: Owner) -> None:
    made = (await owner.schedule()).json()
    assert (made["cron"], made["name"], made["inputs"]) == ("0 8 * * *", "Mail sorter", {"a": 2, "b": 3})
    assert made["when"] == "At 08:00 every day"
    one = f"{LIBRARY}/schedules/{made['id']}"
    for path in (f"{owner.path}/schedules", f"{LIBRARY}/schedules"):
        assert (await owner.get(path))["schedules"] == [made]
    for paused in (True, False):
        assert (await owner.ask("PATCH", one, json={"paused": paused})).json()["paused"] is paused
    assert (await owner.ask("DELETE", one)).status_code == 204
    assert_problem(await owner.ask("DELETE", one), 404, "schedule_not_found")
    for cron in ("0 8 * * * *", "@daily", "8"):
        assert_problem(await owner.schedule(cron=cron), 422, "invalid_schedule")
    assert_problem(await owner.schedule(inputs={}), 422, "invalid_inputs")


async def test_another_user_sees_nothing_of_it(api: RunningApi, owner: Owner) -> None:
    run = (await owner.begin(a=1, b=2)).json()["execution_id"]
    schedule = (await owner.schedule()).json()["id"]
    other = await an_owner(api)
    for method, path, body in [
        ("GET", f"{owner.path}/inputs", None),
        ("GET", f"{owner.path}/runs", None),
        ("GET", f"{owner.path}/runs/{run}", None),
        ("POST", f"{owner.path}/runs", {"inputs": {"a": 1, "b": 2}}),
        ("POST", f"{owner.path}/runs/{run}/cancel", None),
        ("GET", f"{owner.path}/schedules", None),
        ("POST", f"{owner.path}/schedules", {"cron": "0 8 * * *"}),
    ]:
        assert_problem(await other.ask(method, path, json=body), 404, "agent_not_found")
    assert_problem(await other.ask("GET", f"{other.path}/runs/{run}"), 404, "run_not_found")
    for method, body in (("PATCH", {"paused": True}), ("DELETE", None)):
        gone = await other.ask(method, f"{LIBRARY}/schedules/{schedule}", json=body)
        assert_problem(gone, 404, "schedule_not_found")
    assert (await other.get(f"{LIBRARY}/schedules"))["schedules"] == []
    assert_problem(await api.http.get(f"{owner.path}/runs"), 404, "agent_not_found")
    assert_problem(await api.http.get(f"{LIBRARY}/schedules"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (503, {}, (503, "platform_unavailable")),
        (401, {}, (503, "platform_unavailable")),
        (402, {}, (403, "platform_refused")),
        (409, {}, (409, "platform_conflict")),
        (429, {}, (429, "rate_limited")),
        (422, {"error": "No.", "code": "invalid_graph", "details": []}, (422, "agent_not_runnable")),
        (500, {}, (503, "unavailable")),
        (200, [], (503, "unavailable")),
    ],
)
async def test_a_refusal_of_the_platform_is_an_error_with_a_code(
    owner: Owner, platform: FakePlatform, status: int, said: Any, expected: tuple[int, str]
) -> None:
    platform.answers["PUT 1"] = [(status, said)] * 3
    assert_problem(await owner.begin(a=1, b=2), *expected)


async def test_a_slow_platform_does_not_hold_a_request_for_longer_than_its_limit(
    postgres_dsn: str, redis_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_access, "PLATFORM_SECONDS", 0.5)
    over = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/api/v1"
    try:
        async with running_api(postgres_dsn, redis_dsn, executor=False, platform_url=url) as api:
            owner = await an_owner(api)
            began = time.monotonic()
            assert_problem(await owner.begin(a=1, b=2), 503, "platform_unavailable")
            assert time.monotonic() - began < platform_access.PLATFORM_SECONDS + 5
    finally:
        over.set()
        silent.close()
        await silent.wait_closed()


async def test_without_a_platform_the_code_says_so(postgres_dsn: str, redis_dsn: str) -> None:
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        owner = await an_owner(api)
        assert_problem(await owner.ask("GET", f"{owner.path}/runs"), 503, "platform_not_configured")


@pytest.mark.parametrize("what", ["agent", "user"])
async def test_what_is_deleted_here_is_deleted_at_the_platform(
    api: RunningApi, owner: Owner, platform: FakePlatform, what: str
) -> None:
    other = await an_owner(api)
    for one in (owner, other):
        assert (await one.schedule()).status_code == 201
        assert (await one.begin(a=1, b=2)).status_code == 202
    path = owner.path if what == "agent" else "/api/chat/user"
    platform.answers[f"DELETE {path.rsplit('/', 1)[-1] if what == 'user' else f'graph-of-{owner.user}'}"] += [
        (500, {}) for _ in range(3)
    ]
    assert (await owner.ask("DELETE", path)).status_code == 503
    assert (await owner.ask("GET", owner.path)).status_code == 200, "nothing was deleted"
    platform.answers.clear()
    assert (await owner.ask("DELETE", path)).status_code == 204
    assert (await owner.ask("GET", owner.path)).status_code == 404
    left = [*(of[0] for of in platform.graphs), *(run.user for run in platform.runs.values()), *platform.schedules]
    assert not [one for one in left if one.startswith(owner.user)]
    assert sum(one.startswith(other.user) for one in left) == 3


@pytest.mark.parametrize("what", ["agent", "user"])
@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_platform_that_cannot_delete_blocks_no_deletion(
    api: RunningApi, owner: Owner, platform: FakePlatform, what: str, status: int
) -> None:
    other = await an_owner(api)
    for one in (owner, other):
        assert (await one.schedule()).status_code == 201
    path, end = (owner.path, f"graph-of-{owner.user}") if what == "agent" else ("/api/chat/user", "user")
    platform.answers[f"DELETE {end}"] += [(status, {}) for _ in range(2)]
    answer = await owner.ask("DELETE", path)
    assert answer.status_code == (204 if status == 404 else 200), answer.text
    if status != 404:
        assert answer.json()["kept_at_platform"] is True
        assert not [name for name in platform.schedules if name.startswith(owner.user)], "they would go on"
    assert (await owner.ask("GET", owner.path)).status_code == 404
    assert [name for name in platform.schedules if name.startswith(other.user)]


async def test_a_platform_without_schedules_blocks_no_deletion(owner: Owner, platform: FakePlatform) -> None:
    platform.answers["DELETE user"] += [(405, {}) for _ in range(2)]
    platform.answers["GET schedules"] += [(501, {}), (404, {})]
    assert (await owner.ask("DELETE", "/api/chat/user")).status_code == 200


async def test_a_platform_that_is_away_for_its_schedules_blocks_the_deletion(
    owner: Owner, platform: FakePlatform
) -> None:
    platform.answers["DELETE user"] += [(405, {})]
    platform.answers["GET schedules"] += [(503, {}) for _ in range(3)]
    assert_problem(await owner.ask("DELETE", "/api/chat/user"), 503, "platform_unavailable")
    assert (await owner.ask("GET", owner.path)).status_code == 200


@pytest.mark.parametrize("away", [False, True])
async def test_a_schedule_that_is_made_while_its_agent_is_deleted_is_deleted(
    owner: Owner, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    delete = library.delete_agent

    async def delete_late(*what: Any) -> None:
        assert (await owner.schedule()).status_code == 201
        await delete(*what)

    monkeypatch.setattr(library, "delete_agent", delete_late)
    if away:
        platform.answers[f"DELETE graph-of-{owner.user}"] += [(None, {}), *((503, {}) for _ in range(3))]
    answer = await owner.ask("DELETE", owner.path)
    assert answer.status_code == (200 if away else 204), answer.text
    assert (await owner.ask("GET", owner.path)).status_code == 404
    assert bool([name for name in platform.schedules if name.startswith(owner.user)]) is away


async def test_a_schedule_that_is_made_after_the_deletion_of_its_agent_is_deleted(
    owner: Owner, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Platform.make_schedule

    async def make_late(*what: Any) -> Any:
        assert (await owner.ask("DELETE", owner.path)).status_code == 204
        return await make(*what)

    monkeypatch.setattr(Platform, "make_schedule", make_late)
    assert_problem(await owner.schedule(), 404, "agent_not_found")
    assert not [name for name in platform.schedules if name.startswith(owner.user)]


async def test_a_schedule_that_a_turn_makes_while_its_user_is_deleted_is_deleted(
    owner: Owner, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def delete_late(*what: Any) -> None:
        assert (await owner.schedule()).status_code == 201
        await delete_user(*what)

    monkeypatch.setattr(user, "delete_user", delete_late)
    assert (await owner.ask("DELETE", "/api/chat/user")).status_code == 204
    assert not [name for name in platform.schedules if name.startswith(owner.user)]

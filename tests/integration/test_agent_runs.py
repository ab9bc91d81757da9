"""The tools that run agents and blocks, with API, executor and stores of their own, and a fake agent platform.

The real platform of examples/ is in tests/e2e/test_agent_runs.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from backend.chat.protocol.agent_json import parse_agent
from backend.chat.store.library import save_agent
from backend.ids import UserId
from backend.platform.client import Platform
from backend.postgres import Connection
from executor.side_jobs import remote_tasks
from executor.tools import agent_runs
from tests.fakes.agent_platform import FakePlatform, FakeRun, fake_platform
from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, new_user, outputs_in, running_api

SCHEMA = {
    "type": "object",
    "properties": {"b": {"type": "number"}, "a": {"type": "number"}},
    "required": ["b", "a"],
}
RUNS, SCHEDULES = 3, 2


@pytest.fixture(scope="module")
async def platform() -> AsyncIterator[FakePlatform]:
    async with fake_platform() as fake:
        yield fake


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, platform: FakePlatform) -> AsyncIterator[RunningApi]:
    limits = {"max_agent_runs": RUNS, "max_agent_schedules": SCHEDULES}
    async with running_api(postgres_dsn, redis_dsn, **platform.settings, **limits) as api:
        yield api


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, platform: FakePlatform) -> Iterator[None]:
    """Looks are soon due, so that no test waits for seconds."""
    for name in ("LOOK_EVERY", "CALM_LOOK_EVERY"):
        monkeypatch.setattr(remote_tasks, name, 0.05)
    monkeypatch.setattr(remote_tasks, "RETRY_IN", 0.1)
    monkeypatch.setattr(agent_runs, "SLACK", 0.3)
    monkeypatch.setattr(agent_runs, "LEAST_PAUSE", 0.1)
    yield
    platform.answers.clear()
    platform.ends_at_once = False


class User:
    """A user with a conversation, and an agent that adds two numbers."""

    def __init__(self, api: RunningApi, name: str, session: str, agent_id: str) -> None:
        self.api, self.name, self.session, self.agent_id = api, name, session, agent_id
        self.mine = api.as_user(name)

    async def say(self, text: str) -> dict[str, Any]:
        """Sends a message. Returns the output of its last call, with the text of the answer as `said`."""
        client = await self.api.say(self.session, text, self.mine)
        outputs = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
        return {**outputs[-1], "said": client.text}

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return await self.say(f"/tool {tool} {json.dumps(arguments)}")

    async def run(self, **more: Any) -> dict[str, Any]:
        return await self.call("run_agent", **{"agent_id": self.agent_id, "inputs": {"a": 2, "b": 3}, **more})

    async def continued(self, started: dict[str, Any]) -> dict[str, Any]:
        """Waits for the continuation of an operation. Returns its output, with the text as `said`."""
        client = await self.api.ended(started["task_id"], self.mine)
        (output,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
        return {**output, "said": client.text}

    async def post_outcome(self, started: dict[str, Any], outcome: dict[str, Any]) -> int:
        path = f"/api/chat/operations/{started['operation_id']}/complete"
        answer = await self.api.http.post(path, json=outcome, headers={"x-api-key": SERVICE_KEY})
        return answer.status_code


NewUser = Callable[..., Any]


@pytest.fixture
def user_of(api: RunningApi, c: Connection) -> NewUser:
    async def new(**members: Any) -> User:
        name = new_user()
        document = {"name": "Adder", "description": "", "nodes": [], "links": [], "input_schema": SCHEMA, **members}
        document["nodes"] = [{"id": "n1", "block_id": "b"}]
        saved = await save_agent(c, UserId(name), parse_agent(document), task_id=None)
        return User(api, name, await api.new_session(api.as_user(name)), saved.agent.id)

    return new


@pytest.fixture
async def user(user_of: NewUser) -> User:
    found: User = await user_of()
    return found


async def until(so: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not so():
            await asyncio.sleep(0.02)


async def rows_of(c: Connection, started: dict[str, Any]) -> int:
    number: int = await c.fetchval("SELECT count(*) FROM remote_tasks WHERE id = $1", started["task_id"])
    return number


# --- run_agent ------------------------------------------------------------------------------------------------------


async def test_a_run_is_an_operation_that_the_webhook_completes(
    user: User, platform: FakePlatform, c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_runs, "SLACK", 600)  # no executor asks
    started = await user.run()
    assert started["type"] == "operation_started"
    run = platform.run_of(started["operation_id"])
    assert run.body["callback_url"].endswith(f"/api/chat/operations/{started['operation_id']}/complete")
    assert (run.user, run.body["node_input"]) == (user.name, {"a": 2, "b": 3})
    outcome = platform.end(run)
    assert await user.post_outcome(started, outcome) == 200
    assert await user.post_outcome(started, outcome) == 200, "the same outcome again changes nothing"
    output = await user.continued(started)
    assert (output["type"], output["outputs"], output["execution_id"]) == ("agent_output", {"sum": [5]}, run.id)
    assert output["agent_id"] == user.agent_id
    assert "sum: 5" in output["said"]
    assert await rows_of(c, started) == 0
    assert platform.asked("POST", f"{run.id}/cancel") == [], "what has ended is not stopped"


async def test_a_run_whose_webhook_is_lost_is_completed_by_the_side_job(user: User, platform: FakePlatform) -> None:
    started = await user.run()
    outcome = platform.end(platform.run_of(started["operation_id"]))
    output = await user.continued(started)
    assert output["outputs"] == {"sum": [5]}
    assert await user.post_outcome(started, outcome) == 200, "a late webhook tells the same"


async def test_a_failed_run_says_why(user: User, platform: FakePlatform) -> None:
    started = await user.run()
    platform.end(platform.run_of(started["operation_id"]), "failed", "node Add: it is not a number")
    output = await user.continued(started)
    assert (output["type"], output["error"]) == ("error", "run_failed")
    assert "it is not a number" in output["said"]


async def test_a_call_may_wait_for_its_run(user: User, platform: FakePlatform) -> None:
    platform.ends_at_once = True
    output = await user.run(wait_for_result=30)
    assert (output["type"], output["outputs"]) == ("agent_output", {"sum": [5]})
    (session,) = [await user.api.session(user.session, user.mine)]
    assert session["operations"] == []
    (run,) = [run for run in platform.runs.values() if run.user == user.name]
    assert "callback_url" not in run.body, "the webhook would be faster than the turn"


async def test_a_run_that_takes_longer_than_the_call_waits_goes_on(user: User, platform: FakePlatform) -> None:
    started = await user.run(wait_for_result=1)
    assert started["type"] == "operation_started"
    platform.end(platform.run_of(started["operation_id"]))
    assert (await user.continued(started))["outputs"] == {"sum": [5]}


async def test_inputs_that_are_missing_or_wrong_are_named(user: User, platform: FakePlatform) -> None:
    missing = await user.run(inputs={"a": 2})
    assert (missing["type"], missing["setup_info"]["missing"]) == ("setup_requirements", ["b"])
    assert missing["setup_info"]["input_schema"]["properties"] == SCHEMA["properties"]
    assert set(missing["setup_info"]["property_order"]) == {"a", "b"}
    wrong = await user.run(inputs={"a": "two", "b": 3, "c": 1})
    assert wrong["type"] == "input_validation_error"
    assert wrong["problems"] == ["a must be of type number", "c is not one of its inputs"]
    assert [run for run in platform.runs.values() if run.user == user.name] == []


async def test_only_the_user_runs_an_agent_and_only_active_versions(
    user_of: NewUser, user: User, c: Connection
) -> None:
    other: User = await user_of()
    assert (await other.run(agent_id=user.agent_id))["error"] == "agent_not_found"
    assert (await other.call("view_agent_output", agent_id=user.agent_id))["error"] == "agent_not_found"
    assert (await user.run(version=7))["error"] == "agent_not_found"
    sleeping: User = await user_of(is_active=False)
    assert (await sleeping.run())["error"] == "agent_not_found"
    anonymous = await user.api.say(await user.api.new_session(), f'/tool run_agent {{"agent_id": "{user.agent_id}"}}')
    (output,) = [chunk["output"] for chunk in anonymous.chunks if chunk["type"] == "tool-output-available"]
    assert output["type"] == "need_login"


async def test_the_cancel_of_an_operation_cancels_its_run(user: User, platform: FakePlatform, c: Connection) -> None:
    started = await user.run()
    run = platform.run_of(started["operation_id"])
    answer = await user.api.http.post(f"/api/chat/tasks/{started['task_id']}/cancel", headers=user.mine)
    assert answer.status_code == 200
    await until(lambda: run.status == "cancelled")
    assert await user.post_outcome(started, platform.end(run)) == 410
    (output,) = outputs_in(await user.api.session(user.session, user.mine))
    assert output["error"] == "cancelled"


async def test_a_run_whose_answer_was_lost_is_found_again_and_runs_once(user: User, platform: FakePlatform) -> None:
    platform.answers["POST 1"] = [(0, None)] * 3  # each try is carried out, and its answer lost
    started = await user.run()
    assert started["type"] == "operation_started", started
    run = platform.run_of(started["operation_id"])
    platform.end(run)
    assert (await user.continued(started))["execution_id"] == run.id
    assert len([one for one in platform.runs.values() if one.user == user.name]) == 1


async def test_a_run_whose_answer_was_lost_is_stopped_with_its_operation(user: User, platform: FakePlatform) -> None:
    platform.answers["POST 1"] = [(0, None)] * 3 + [(503, {})] * 1000
    started = await user.run()
    run = platform.run_of(started["operation_id"])
    await user.api.http.post(f"/api/chat/tasks/{started['task_id']}/cancel", headers=user.mine)
    await until(lambda: run.status == "cancelled")


async def test_a_run_whose_request_is_under_way_still_is_stopped_when_it_has_begun(
    user: User, platform: FakePlatform
) -> None:
    platform.answers["POST 1"] = [(0, None)] * 3 + [(503, {})] * 1000
    platform.answers["GET executions"] = [(200, {"executions": []})]  # the request that began it comes later
    started = await user.run()
    await user.api.http.post(f"/api/chat/tasks/{started['task_id']}/cancel", headers=user.mine)
    await until(lambda: platform.run_of(started["operation_id"]).status == "cancelled")
    assert len(platform.asked("GET", "executions")) >= 2


@pytest.mark.parametrize(
    ("place", "status", "code"),
    [
        ("PUT 1", 422, "invalid_input"),
        ("PUT 1", 409, "conflict"),
        ("PUT 1", 401, "tool_unavailable"),
        ("POST 1", 402, "no_credit"),
        ("POST 1", 403, "disabled"),
        ("POST 1", 404, "not_found"),
        ("POST 1", 503, "tool_unavailable"),
        ("POST 1", 422, "invalid_input"),
    ],
)
async def test_a_refusal_of_the_platform_is_the_answer_of_the_call(
    user: User, platform: FakePlatform, c: Connection, place: str, status: int, code: str
) -> None:
    said = {"error": "A sentence", "code": "x", "details": [{"field": "a", "message": "is odd"}]}
    platform.answers[place] = [(status, said)] * 3
    output = await user.run()
    assert (output["type"], output["error"]) == ("error", code), output
    assert ("is odd" in json.dumps(output)) == (status != 401)
    assert [run for run in platform.runs.values() if run.user == user.name] == []
    assert (await user.api.session(user.session, user.mine))["operations"] == []
    left = "SELECT count(*) FROM remote_tasks r JOIN tasks t USING (id) WHERE t.session_id = $1"
    assert await c.fetchval(left, user.session) == 0


async def test_a_run_that_the_platform_has_lost_ends(user: User, platform: FakePlatform) -> None:
    started = await user.run()
    del platform.runs[platform.run_of(started["operation_id"]).id]
    assert (await user.continued(started))["error"] == "run_lost"


async def test_a_conversation_begins_a_limited_number_of_runs(user: User, platform: FakePlatform) -> None:
    platform.ends_at_once = True
    for _ in range(RUNS):
        assert (await user.run(wait_for_result=20))["type"] == "agent_output"
    refused = await user.run()
    assert (refused["type"], refused["error"]) == ("error", "too_many_runs")


# --- view_agent_output ----------------------------------------------------------------------------------------------


async def test_the_output_of_a_run_can_be_seen(user: User, platform: FakePlatform) -> None:
    assert (await user.call("view_agent_output", agent_id=user.agent_id))["type"] == "no_results"
    started = await user.run()
    run: FakeRun = platform.run_of(started["operation_id"])
    running = await user.call("view_agent_output", execution_id=run.id)
    assert (running["type"], running["status"]) == ("execution_started", "running")
    assert [node["status"] for node in running["nodes"]] == ["completed", "running"]
    platform.end(run)
    seen = await user.call("view_agent_output", agent_id=user.agent_id)
    assert (seen["type"], seen["outputs"], seen["execution_id"]) == ("agent_output", {"sum": [5]}, run.id)
    assert (await user.call("view_agent_output", execution_id="unknown"))["error"] == "execution_not_found"
    await user.continued(started)


# --- schedules ------------------------------------------------------------------------------------------------------


async def test_a_schedule_is_made_paused_resumed_and_deleted(user: User, platform: FakePlatform) -> None:
    made = await user.run(schedule={"cron": "0 8 * * *", "timezone": "Europe/Berlin"})
    assert made["type"] == "agent_schedules", made
    (schedule,) = made["schedules"]
    assert (schedule["cron"], schedule["name"], schedule["inputs"]) == ("0 8 * * *", "Adder", {"a": 2, "b": 3})
    listed = await user.call("agent_schedules", agent_id=user.agent_id)
    assert [one["id"] for one in listed["schedules"]] == [schedule["id"]]
    paused = await user.call("agent_schedules", action="pause", schedule_id=schedule["id"])
    assert paused["schedules"][0]["paused"] is True
    resumed = await user.call("agent_schedules", action="resume", schedule_id=schedule["id"])
    assert resumed["schedules"][0]["paused"] is False
    assert (await user.call("agent_schedules", action="delete", schedule_id=schedule["id"]))["count"] == 0
    assert (await user.call("agent_schedules"))["type"] == "no_results"
    gone = await user.call("agent_schedules", action="pause", schedule_id=schedule["id"])
    assert gone["error"] == "schedule_not_found"


async def test_a_schedule_of_an_agent_that_was_deleted_meanwhile_is_deleted(
    user: User, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Platform.make_schedule

    async def make_late(*what: Any) -> Any:
        gone = await user.api.http.delete(f"/api/library/agents/{user.agent_id}", headers=user.mine)
        assert gone.status_code == 204
        return await make(*what)

    monkeypatch.setattr(Platform, "make_schedule", make_late)
    answer = await user.run(schedule={"cron": "0 8 * * *"})
    assert answer["error"] == "agent_not_found", answer
    assert not [name for name in platform.schedules if name.startswith(user.name)]


async def test_a_conversation_makes_a_limited_number_of_schedules(user: User) -> None:
    wrong = await user.run(schedule={"cron": "0 8 * * * *"})
    assert (wrong["error"], wrong["details"]["details"][0]["field"]) == ("invalid_request", "cron")
    for _ in range(SCHEDULES - 1):
        assert (await user.run(schedule={"cron": "0 8 * * *"}))["type"] == "agent_schedules"
    assert (await user.run(schedule={"cron": "0 8 * * *"}))["error"] == "too_many_schedules"
    assert (await user.run(inputs={"a": 1, "b": 1}))["type"] == "operation_started", "runs are counted by themselves"


# --- blocks ---------------------------------------------------------------------------------------------------------


async def test_blocks_are_found_and_run(user: User, platform: FakePlatform) -> None:
    found = await user.call("find_block", query="add numbers")
    assert [block["id"] for block in found["blocks"]] == ["block-add"], "input blocks are not found"
    assert len(platform.asked("GET", "/blocks")) == 1, "the list is kept"
    details = await user.call("run_block", block_id="block-add")
    assert (details["type"], details["block"]["name"]) == ("block_details", "Add")
    missing = await user.call("run_block", block_id="block-add", inputs={"a": 1})
    assert (missing["type"], missing["setup_info"]["missing"]) == ("setup_requirements", ["b"])
    done = await user.call("run_block", block_id="block-add", inputs={"a": 1, "b": 2})
    assert (done["type"], done["outputs"], done["block_name"]) == ("block_output", {"result": [3]}, "Add")
    assert (await user.call("run_block", block_id="block-input", inputs={}))["error"] == "block_not_runnable"
    assert (await user.call("run_block", block_id="none"))["error"] == "block_not_found"
    assert len(platform.asked("GET", "/blocks")) == 1


async def test_a_block_whose_answer_is_lost_may_have_run(user: User, platform: FakePlatform) -> None:
    platform.answers["POST execute"] = [(500, {}), (500, {})]
    mail = await user.call("run_block", block_id="block-mail", inputs={"to": "me"})
    assert mail["error"] == "interrupted_unknown_effect"
    added = await user.call("run_block", block_id="block-add", inputs={"a": 1, "b": 2})
    assert added["error"] == "platform_error", "it is idempotent, so it may be called again"


# --- the scripted model ---------------------------------------------------------------------------------------------


async def test_the_scripted_model_runs_the_agent_that_was_named_last(user: User, platform: FakePlatform) -> None:
    first = await user.say(f'Run the agent {user.agent_id} with {{"a": 20, "b": 1}}')
    platform.end(platform.run_of(first["operation_id"]))
    assert "sum: 21" in (await user.continued(first))["said"]
    second = await user.say("Run it with 2 and 3")
    assert second["type"] == "operation_started"
    run = platform.run_of(second["operation_id"])
    assert sorted(run.body["node_input"].values()) == [2, 3]
    platform.end(run)
    assert "sum: 5" in (await user.continued(second))["said"]

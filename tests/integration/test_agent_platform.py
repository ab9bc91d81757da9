"""Tests of the agent platform of examples/ as a process, over HTTP. Each restart follows a kill -9."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from standardwebhooks import Webhook

from examples.agent_platform.blocks.block import block_id
from tests.plain_http import http_client
from tests.platform_graphs import adder, brancher, graph, node
from tests.servers.generator import WEBHOOK_SECRET, generator_node
from tests.servers.receiver import Receiver, receiver
from tests.speed import limit

KEY = "the-platform-of-the-tests"
FINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class User:
    """A user of a running platform."""

    url: str
    id: str

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """Returns the JSON of the answer, which must have that status. Headers are named with `_` for `-`."""
        sent = {"x-api-key": KEY, "x-user-id": self.id}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with http_client(base_url=self.url, timeout=limit(20)) as client:
            response = await client.request(method, path, json=body, headers=sent)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def start(self, document: dict[str, Any], node_input: dict[str, Any] | None = None, **more: Any) -> str:
        """Stores a graph under a new id, starts it, and returns the path of the run."""
        graph_id = str(uuid.uuid4())
        await self.ask("PUT", f"/graphs/{graph_id}/versions/1", document)
        body = {"node_input": node_input or {}, **more}
        run = await self.ask("POST", f"/graphs/{graph_id}/execute/1", body, status=202)
        return f"/graphs/{graph_id}/executions/{run['id']}"

    async def result(self, run: str) -> dict[str, Any]:
        """Waits until a run has ended."""
        async with asyncio.timeout(limit(20)):
            while True:
                found: dict[str, Any] = await self.ask("GET", f"{run}/results")
                if found["status"] in FINAL:
                    return found
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[str]:
    """Starts a platform with its data in `folder`, and kills it at the end."""
    own = folder / str(uuid.uuid4())  # for the output of this process alone
    own.mkdir()
    data = {"PLATFORM_DATA": str(folder / "data"), "PLATFORM_PRIVATE_NETWORKS": "127.0.0.0/8"}
    async with generator_node(own, PLATFORM_API_KEY=KEY, **data) as generator:
        yield f"{generator.url}/api/v1"


@pytest.fixture(scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A platform that the tests share."""
    async with running(tmp_path_factory.mktemp("platform")) as url:
        yield url


@pytest.fixture
def user(platform: str) -> User:
    return User(platform, str(uuid.uuid4()))


@pytest.fixture
async def inbox() -> AsyncIterator[Receiver]:
    async with receiver() as inbox:
        yield inbox


def nested(levels: int) -> list[Any]:
    """Returns a list in a list, so often."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def statuses(result: dict[str, Any]) -> dict[str, str]:
    return {node["node_id"]: node["status"] for node in result["nodes"]}


def rows(folder: Path, statement: str) -> list[Any]:
    """Reads or changes the database of a platform that does not run."""
    connection = sqlite3.connect(folder / "data" / "platform.sqlite3")
    try:
        with connection:
            return connection.execute(statement).fetchall()
    finally:
        connection.close()


# --- blocks -------------------------------------------------------------------------------------------------------


async def test_blocks_are_listed_with_their_schemas(user: User) -> None:
    blocks = await user.ask("GET", "/blocks")
    assert {"Agent Input", "Agent Output", "Arithmetic", "HTTP Request"} < {block["name"] for block in blocks}
    for block in blocks:
        keys = {"id", "name", "description", "categories", "inputSchema", "outputSchema", "idempotent", "kind"}
        assert set(block) == keys
        Draft202012Validator.check_schema(block["inputSchema"])


async def test_a_block_runs_once_for_a_key(user: User, inbox: Receiver) -> None:
    path, body = (
        f"/blocks/{block_id('HTTP Request')}/execute",
        {"url": inbox.url("/hook"), "method": "POST", "body": {"a": 1}},
    )
    answers = await asyncio.gather(*(user.ask("POST", path, body, idempotency_key="k") for _ in range(3)))
    assert [answer["status"] for answer in answers] == [[200]] * 3
    assert (await inbox.next()).json() == {"a": 1}
    assert inbox.waiting == 0
    refused = await user.ask("POST", path, {**body, "body": 2}, idempotency_key="k", status=409)
    assert refused["code"] == "conflict"
    await User(user.url, "another").ask("POST", path, body, idempotency_key="k")
    assert inbox.waiting == 1


async def test_a_block_says_what_is_wrong(user: User) -> None:
    path = f"/blocks/{block_id('Arithmetic')}/execute"
    assert await user.ask("POST", path, {"operation": "add", "a": 1, "b": 2}) == {"result": [3]}
    refused = await user.ask("POST", path, {"operation": "add", "a": "x"}, status=422)
    assert refused["code"] == "invalid_input"
    assert {detail["field"] for detail in refused["details"]} == {"a", "b"}
    failed = await user.ask("POST", path, {"operation": "divide", "a": 1, "b": 0}, status=422, idempotency_key="0")
    assert failed == {"code": "block_failed", "error": "The block failed: a number cannot be divided by 0."}
    assert (
        await user.ask("POST", path, {"operation": "divide", "a": 1, "b": 0}, status=422, idempotency_key="0") == failed
    )


# --- graphs and runs ----------------------------------------------------------------------------------------------


async def test_an_agent_of_the_generator_runs(user: User) -> None:
    generator = user.url.removesuffix("/api/v1")
    async with http_client(base_url=generator, timeout=limit(20)) as client:
        goal = await client.post("/api/decompose-description", json={"description": "an agent that adds two numbers"})
        work = {"instructions": {**goal.json(), "note": "[generator: 200]"}, "operation_id": "o", "task_id": "t"}
        agent = (await client.post("/api/generate-agent", json=work)).json()["agent_json"]
    stored = await user.ask("PUT", f"/graphs/{agent['id']}/versions/{agent['version']}", agent)
    assert stored["input_schema"]["required"] == ["a", "b"]
    assert (stored["trigger"], stored["webhook_path"]) == (None, None)
    result = await user.result(await user.start(agent, {"a": 2, "b": 40}))
    assert (result["status"], result["output"], result["error"]) == ("completed", {"result": [42]}, None)


async def test_a_run_reports_its_nodes(user: User) -> None:
    run = await user.start(brancher(), {"n": 11}, operation_id="op-0")
    result = await user.result(run)
    assert statuses(result) == {
        "n": "completed", "if": "completed", "large": "completed", "small": "skipped", "out": "completed",
    }  # fmt: skip
    assert result["output"] == {"words": ["11 is large"]}
    assert result["started_at"] <= result["ended_at"]
    assert result["operation_id"] == "op-0"
    (listed,) = (await user.ask("GET", run.rpartition("/")[0]))["executions"]
    assert listed == {key: value for key, value in result.items() if key != "nodes"}


async def test_a_version_has_one_content(user: User) -> None:
    path = "/graphs/a graph%2F1/versions/3"
    stored = await user.ask("PUT", path, adder())
    assert (stored["id"], stored["version"]) == ("a graph/1", 3)
    assert await user.ask("PUT", path, dict(reversed(adder().items()))) == stored
    assert (await user.ask("PUT", path, {**adder(), "name": "x"}, status=409))["code"] == "conflict"
    refused = await user.ask("PUT", "/graphs/g/versions/1", graph([node("d", "Delay")]), status=422)
    assert refused["code"] == "invalid_graph"
    assert [detail["node_id"] for detail in refused["details"]] == ["d"]


async def test_a_graph_is_validated_without_being_stored(user: User) -> None:
    valid = await user.ask("POST", "/graphs/validate", adder())
    assert valid["valid"] is True
    assert valid["input_schema"]["required"] == ["a"]
    invalid = await user.ask("POST", "/graphs/validate", graph([node("d", "Delay")]))
    assert (invalid["valid"], len(invalid["errors"])) == (False, 1)
    await user.ask("POST", "/graphs/g/execute/1", {}, status=404)


async def test_a_key_starts_one_run(user: User) -> None:
    await user.ask("PUT", "/graphs/g/versions/1", adder())

    async def start(a: int, status: int = 202) -> Any:
        body = {"node_input": {"a": a}}
        return await user.ask("POST", "/graphs/g/execute/1", body, status=status, idempotency_key="k")

    runs = await asyncio.gather(*(start(1) for _ in range(5)))
    assert len({run["id"] for run in runs}) == 1
    assert (await start(2, 409))["code"] == "conflict"
    assert len((await user.ask("GET", "/graphs/g/executions"))["executions"]) == 1


async def test_another_user_has_none_of_it(user: User) -> None:
    run = await user.start(graph([node("wait", "Delay", seconds=60)]))
    graph_path = run.partition("/executions/")[0]
    schedule = {"version": 1, "name": "n", "cron": "0 8 * * *", "timezone": "UTC", "node_input": {}}
    made = await user.ask("POST", f"{graph_path}/schedules", schedule, status=201)
    other = User(user.url, str(uuid.uuid4()))
    for method, path, body in (
        ("GET", f"{run}/results", None),
        ("POST", f"{run}/cancel", None),
        ("POST", f"{graph_path}/execute/1", {}),
        ("POST", f"{graph_path}/schedules", schedule),
        ("PATCH", f"/schedules/{made['id']}", {"paused": True}),
        ("DELETE", f"/schedules/{made['id']}", None),
    ):
        assert (await other.ask(method, path, body, status=404))["code"] == "not_found"
    assert await other.ask("GET", f"{graph_path}/executions") == {"executions": []}
    assert await other.ask("GET", "/schedules") == {"schedules": []}
    assert (await user.ask("POST", f"{run}/cancel"))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "not_found"),
        ("DELETE", "/blocks", None, 405, "invalid_request"),
        ("POST", "/blocks/x/execute", {}, 404, "not_found"),
        ("POST", f"/blocks/{block_id('Delay')}/execute", [], 400, "invalid_request"),
        ("POST", "/graphs/validate", {"x": "x" * 1_200_001}, 413, "too_large"),
        ("PUT", "/graphs/g/versions/0", {}, 400, "invalid_request"),
        ("POST", "/graphs/g/execute/1", {"node_input": 1}, 400, "invalid_request"),
        ("POST", "/graphs/g/execute/1", {"callback_url": "http://x.test/y"}, 400, "invalid_request"),
        ("GET", "/graphs/g/executions/x/results", None, 404, "not_found"),
        ("GET", "/graphs/g/executions?limit=0", None, 400, "invalid_request"),
        ("POST", "/webhooks/x", {}, 404, "not_found"),
        ("PUT", "/graphs/g/versions/1", {**adder(), "x": nested(300)}, 400, "invalid_request"),
        ("POST", "/graphs/g/execute/1", {"node_input": {"a": nested(300)}}, 400, "invalid_request"),
    ],
)
async def test_a_request_that_is_not_valid_gets_a_code(
    user: User, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = await user.ask(method, path, body, status=status)
    assert answer["code"] == code
    assert answer["error"].endswith(".") or status == 405


async def test_the_key_and_the_user_are_required(user: User) -> None:
    assert (await user.ask("GET", "/blocks", status=401, x_api_key="wrong"))["code"] == "unauthorized"
    assert (await User(user.url, "").ask("GET", "/schedules", status=400))["code"] == "invalid_request"
    assert await user.ask("GET", "/health", x_api_key="") == {"status": "healthy"}


async def test_the_inputs_of_a_run_are_checked(user: User) -> None:
    await user.ask("PUT", "/graphs/g/versions/1", adder())
    refused = await user.ask("POST", "/graphs/g/execute/1", {"node_input": {"b": "x"}}, status=422)
    assert refused["code"] == "invalid_input"
    assert {detail["field"] for detail in refused["details"]} == {"a", "b"}


# --- ends ---------------------------------------------------------------------------------------------------------


def callback(inbox: Receiver, operation: str) -> dict[str, str]:
    return {"operation_id": operation, "task_id": "t", "callback_url": inbox.url(f"/operations/{operation}/complete")}


async def test_the_end_of_a_run_is_delivered(user: User, inbox: Receiver) -> None:
    inbox.answer_with([503])
    run = await user.start(adder(), {"a": 1}, **callback(inbox, "op-1"))
    first, again = await inbox.next(), await inbox.next()
    assert first.body == again.body
    execution = run.rpartition("/")[2]
    assert Webhook(WEBHOOK_SECRET).verify(again.body, again.headers) == {
        "operation_id": "op-1", "success": True,
        "result": {"execution_id": execution, "status": "completed", "output": {"result": [2]}},
    }  # fmt: skip
    await user.start(graph([node("zero", "Arithmetic", operation="divide", a=1, b=0)]), **callback(inbox, "op-2"))
    told = (await inbox.next()).json()
    assert (told["success"], told["error"]) == (False, "node zero: a number cannot be divided by 0")


async def test_a_cancelled_run_stops(user: User, inbox: Receiver) -> None:
    inbox.silent_paths.add("/slow")
    document = graph(
        [node("slow", "HTTP Request", url=inbox.url("/slow")), node("out", "Agent Output", name="x")],
        "slow.text -> out.value",
    )
    run = await user.start(document, **callback(inbox, "op-3"))
    assert (await inbox.next()).path == "/slow"
    cancelled = await user.ask("POST", f"{run}/cancel")
    assert cancelled["status"] == "cancelled"
    assert statuses(cancelled) == {"slow": "cancelled", "out": "cancelled"}
    assert await user.ask("POST", f"{run}/cancel") == cancelled
    told = (await inbox.next()).json()
    assert (told["success"], told["error"]) == (False, "the run was cancelled")


# --- restarts -----------------------------------------------------------------------------------------------------


async def test_a_killed_platform_goes_on_from_the_finished_nodes(tmp_path: Path, inbox: Receiver) -> None:
    """The first node posts and is finished. What only reads runs again; what posts may have run, and fails."""
    inbox.silent_paths |= {"/read", "/post"}

    def document(method: str) -> dict[str, Any]:
        nodes = [
            node("first", "HTTP Request", url=inbox.url("/first"), method="POST"),
            node("second", "HTTP Request", url=inbox.url("/read" if method == "GET" else "/post"), method=method),
            node("out", "Agent Output", name="status"),
        ]
        pin = "body" if method == "POST" else "headers_#_x-first"
        return graph(nodes, f"first.text -> second.{pin}", "second.status -> out.value")

    async with running(tmp_path) as url:
        user = User(url, "u")
        reading = await user.start(document("GET"))
        assert [(await inbox.next()).path for _ in range(2)] == ["/first", "/read"]
        posting = await user.start(document("POST"), **callback(inbox, "op-4"))
        assert [(await inbox.next()).path for _ in range(2)] == ["/first", "/post"]
    assert rows(tmp_path, "SELECT DISTINCT status FROM runs") == [("running",)]
    inbox.silent_paths.clear()
    async with running(tmp_path) as url:
        user = User(url, "u")
        read, posted = await user.result(reading), await user.result(posting)
        requests = [await inbox.next() for _ in range(2)]
    assert (read["status"], read["output"]) == ("completed", {"status": [200]})
    assert posted["error"] == "node second: interrupted, may have run"
    assert statuses(posted) == {"first": "completed", "second": "failed", "out": "skipped"}
    assert {request.path for request in requests} == {"/read", "/operations/op-4/complete"}
    assert inbox.waiting == 0


async def test_a_schedule_runs_once_for_all_times_that_it_missed(tmp_path: Path) -> None:
    async with running(tmp_path) as url:
        user = User(url, "u")
        await user.ask("PUT", "/graphs/g/versions/1", adder())
        body = {"version": 1, "name": "n", "cron": "0 8 * * *", "timezone": "Europe/Berlin", "node_input": {"a": 1}}
        made = await user.ask("POST", "/graphs/g/schedules", body, status=201, idempotency_key="k")
        assert await user.ask("POST", "/graphs/g/schedules", body, status=201, idempotency_key="k") == made
        paused = await user.ask("POST", "/graphs/g/schedules", {**body, "name": "paused"}, status=201)
        paused = await user.ask("PATCH", f"/schedules/{paused['id']}", {"paused": True})
        assert (paused["paused"], paused["next_run_at"]) == (True, None)
        assert await user.ask("GET", "/schedules?graph_id=g") == {"schedules": [made, paused]}
    rows(tmp_path, "UPDATE schedules SET next_run_at = next_run_at - 10 * 86400")
    async with running(tmp_path) as url:
        user = User(url, "u")
        async with asyncio.timeout(limit(20)):
            while not (runs := (await user.ask("GET", "/graphs/g/executions"))["executions"]):
                await asyncio.sleep(0.02)
        result = await user.result(f"/graphs/g/executions/{runs[0]['execution_id']}")
        (again, _) = (await user.ask("GET", "/schedules"))["schedules"]
        await user.ask("DELETE", f"/schedules/{made['id']}", status=204)
        await user.ask("DELETE", f"/schedules/{made['id']}", status=404)
        assert len((await user.ask("GET", "/graphs/g/executions"))["executions"]) == 1
    assert (len(runs), result["output"]) == (1, {"result": [2]})
    assert again["next_run_at"] == made["next_run_at"]


async def test_a_schedule_that_is_not_valid_is_refused(user: User) -> None:
    await user.ask("PUT", "/graphs/g/versions/1", adder())
    good = {"version": 1, "name": "n", "cron": "0 8 * * *", "timezone": "UTC", "node_input": {"a": 1}}
    for change, status in (
        ({"cron": "0 8 * *"}, 400),
        ({"cron": "61 8 * * *"}, 400),
        ({"cron": "0 8 31 2 *"}, 400),
        ({"timezone": "Mars/Base"}, 400),
        ({"timezone": "../../etc/passwd"}, 400),
        ({"name": ""}, 400),
        ({"version": 2}, 404),
        ({"node_input": {}}, 422),
    ):
        await user.ask("POST", "/graphs/g/schedules", {**good, **change}, status=status)


async def test_a_deleted_graph_and_a_deleted_user_leave_nothing(user: User) -> None:
    other = User(user.url, f"{user.id}-other")
    runs = dict[str, list[str]]()
    for one in (user, other):
        for _ in range(2):
            run = await one.start(adder(), {"a": 1, "b": 2})
            await one.result(run)
            schedule = {"version": 1, "name": "s", "cron": "0 8 * * *", "node_input": {"a": 1, "b": 2}}
            await one.ask("POST", f"{run.partition('/executions')[0]}/schedules", schedule, status=201)
            runs.setdefault(one.id, []).append(run)
    slow = await user.start(graph([node("wait", "Delay", seconds=60)]))
    first, second = runs[user.id]
    for run in (first, slow):
        await user.ask("DELETE", run.partition("/executions")[0], status=204)
        await user.ask("GET", f"{run}/results", status=404)
    await user.ask("GET", f"{second}/results")
    assert len((await user.ask("GET", "/schedules"))["schedules"]) == 1
    await user.ask("DELETE", "/user", status=204)
    await user.ask("GET", f"{second}/results", status=404)
    await user.ask("POST", f"{second.partition('/executions')[0]}/execute/1", {}, status=404)
    assert (await user.ask("GET", "/schedules")) == {"schedules": []}
    await user.ask("DELETE", "/user", status=204)
    for run in runs[other.id]:
        await other.ask("GET", f"{run}/results")
    assert len((await other.ask("GET", "/schedules"))["schedules"]) == 2


async def test_a_webhook_starts_a_run(user: User) -> None:
    document = graph(
        [
            node("hook", "Webhook Trigger"),
            node("n", "Agent Input", name="n", type="number", default=0),
            node("who", "Get JSON Value", path="$.who"),
            node("out", "Agent Output", name="who"),
            node("also", "Agent Output", name="n"),
        ],
        "hook.payload -> who.value", "who.value -> out.value", "n.result -> also.value",
    )  # fmt: skip
    stored = await user.ask("PUT", "/graphs/g/versions/1", document)
    assert stored["trigger"] == "webhook"

    async def call() -> Any:
        service = User(user.url, "")
        body = {"who": "ci", "n": 7}
        return await service.ask("POST", stored["webhook_path"], body, status=202, x_api_key="", webhook_id="m1")

    first, second = await call(), await call()
    assert first == second
    result = await user.result(f"/graphs/g/executions/{first['id']}")
    assert result["output"] == {"who": ["ci"], "n": [7]}


async def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    async with running(tmp_path):
        second = tmp_path / "second"
        second.mkdir()
        with pytest.raises(RuntimeError, match="another process uses the folder"):
            async with generator_node(second, PLATFORM_DATA=str(tmp_path / "data")):
                pass

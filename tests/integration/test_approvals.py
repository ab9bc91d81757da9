"""Tests of tool calls that need the user's approval."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import BaseModel

from backend.chat.protocol.tool_responses import BlockOutput
from backend.config import Settings
from executor.tools import open_toolbox
from executor.tools.context import ToolContext
from executor.tools.tool import Tool, Toolbox
from tests.fakes.outside_work import OutsideWork
from tests.integration.running_api import LIMIT, SERVICE_KEY, RunningApi, executing, outputs_in, running_api
from tests.sse_client import StrictClient

RULES = "drop_table=ask, outside_work = ask ,search_*=deny"


class Table(BaseModel):
    name: str


class DropTable(Tool[Table]):
    """A tool with an effect, which it notes in `dropped`."""

    name: ClassVar[str] = "drop_table"
    description: ClassVar[str] = "Drops a table."
    input_type = Table

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.hold: asyncio.Event | None = None

    async def run(self, call: Table, context: ToolContext) -> BlockOutput:
        self.dropped.append(call.name)
        if self.hold is not None:
            await self.hold.wait()
        return BlockOutput(message=f"Dropped {call.name}.", block_id=self.name, outputs={"dropped": call.name})


class TablesToolbox(Toolbox):
    def __init__(self, settings: Settings, tool: DropTable) -> None:
        self._usual = open_toolbox(settings)
        super().__init__([tool, OutsideWork()])

    def find(self, name: str) -> Tool[Any] | None:
        return super().find(name) or self._usual.find(name)


@pytest.fixture(scope="module")
def tool() -> DropTable:
    return DropTable()


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, tool: DropTable) -> AsyncIterator[RunningApi]:
    def toolbox(settings: Settings) -> Toolbox:
        return TablesToolbox(settings, tool)

    async with running_api(postgres_dsn, redis_dsn, toolbox=toolbox, tool_approval=RULES) as resources:
        yield resources


def drop(*names: str) -> str:
    return "\n".join(f"/tool drop_table {json.dumps({'name': name})}" for name in names)


async def ask(api: RunningApi, mine: dict[str, str], text: str) -> tuple[str, list[dict[str, Any]]]:
    session = await api.new_session(mine)
    client = await api.say(session, text, mine)
    return session, asked_in(client)


def asked_in(client: StrictClient) -> list[dict[str, Any]]:
    """Returns what the calls ask, in the order of the calls."""
    return [output for output in client.outputs if output["type"] == "operation_started"]


async def decide(api: RunningApi, asked: dict[str, Any], mine: dict[str, str], **body: Any) -> httpx.Response:
    return await api.http.post(f"/api/chat/operations/{asked['operation_id']}/answer", json=body, headers=mine)


async def test_an_approved_call_runs_and_its_result_takes_its_place(api: RunningApi, tool: DropTable) -> None:
    mine = api.as_user()
    session, (asked,) = await ask(api, mine, drop("one"))
    assert asked["asks"] == "approval"
    assert "one" not in tool.dropped
    (pending,) = (await api.session(session, mine))["operations"]
    assert pending["asks"] == {"kind": "approval", "text": "drop_table", "input": {"name": "one"}}
    assert (await decide(api, asked, mine, approved=True)).status_code == 200
    continued = await api.ended(asked["task_id"], mine)
    kinds = [chunk["type"] for chunk in continued.chunks]
    assert kinds[:4] == ["start", "start-step", "tool-input-available", "tool-output-available"]
    assert continued.text == "The work of drop_table has ended: Dropped one."
    assert tool.dropped.count("one") == 1
    after = await api.session(session, mine)
    assert [one["outputs"] for one in outputs_in(after)] == [{"dropped": "one"}]
    assert after["operations"] == []
    assert (await api.ended(asked["task_id"], mine)).text == continued.text
    again = await decide(api, asked, mine, approved=True)
    assert again.json()["replayed"] is True
    other = await decide(api, asked, mine, approved=False)
    assert (other.status_code, other.json()["code"]) == (409, "already_completed")


async def test_a_denied_call_does_not_run_and_the_model_gets_the_reason(api: RunningApi, tool: DropTable) -> None:
    mine = api.as_user()
    session, (asked,) = await ask(api, mine, drop("denied"))
    assert (await decide(api, asked, mine, approved=False, reason="It is mine.")).status_code == 200
    continued = await api.ended(asked["task_id"], mine)
    assert "It is mine." in continued.text
    assert "denied" not in tool.dropped
    (output,) = outputs_in(await api.session(session, mine))
    assert (output["type"], output["error"]) == ("error", "denied")


async def test_parallel_calls_are_decided_each_by_itself(api: RunningApi, tool: DropTable) -> None:
    mine = api.as_user()
    session, asked = await ask(api, mine, drop("a1", "a2", "a3"))
    assert (await decide(api, asked[1], mine, approved=True)).status_code == 200
    first = await api.ended(asked[1]["task_id"], mine)
    assert first.text == "", "two calls are undecided"
    assert "a2" in tool.dropped, "but this one has run"
    assert (await decide(api, asked[0], mine, approved=False)).status_code == 200
    assert (await api.ended(asked[0]["task_id"], mine)).text == ""
    assert (await decide(api, asked[2], mine, approved=True)).status_code == 200
    assert (await api.ended(asked[2]["task_id"], mine)).text
    outputs = outputs_in(await api.session(session, mine))
    assert [one.get("outputs", one.get("error")) for one in outputs] == ["denied", {"dropped": "a2"}, {"dropped": "a3"}]


async def test_always_is_remembered_in_the_session_alone(api: RunningApi, tool: DropTable) -> None:
    mine = api.as_user()
    session, (asked,) = await ask(api, mine, drop("b1"))
    assert (await decide(api, asked, mine, approved=True, always=True)).status_code == 200
    await api.ended(asked["task_id"], mine)
    free = await api.say(session, drop("b2"), mine)
    assert asked_in(free) == []
    assert "b2" in tool.dropped
    _, again = await ask(api, mine, drop("b3"))
    assert len(again) == 1, "another session asks"
    wrong = await decide(api, again[0], mine, approved=False, always=True)
    assert wrong.status_code == 422


async def test_a_rule_can_deny_and_an_answer_must_be_a_decision(api: RunningApi) -> None:
    mine = api.as_user()
    session, asked = await ask(api, mine, '/tool search_docs {"query": "x"}')
    assert asked == []
    (output,) = outputs_in(await api.session(session, mine))
    assert output["error"] == "denied"
    _, (undecided,) = await ask(api, mine, drop("c"))
    for body in ({"answer": "yes"}, {}, {"approved": "yes"}, {"declined": True, "approved": True}):
        assert (await decide(api, undecided, mine, **body)).status_code == 422


async def test_a_call_with_wrong_input_asks_nobody(api: RunningApi) -> None:
    session, asked = await ask(api, api.as_user(), "/tool drop_table {}")
    assert (session != "", asked) == (True, [])


async def test_an_approved_call_may_begin_an_operation(api: RunningApi) -> None:
    mine = api.as_user()
    session, (asked,) = await ask(api, mine, '/tool outside_work {"label": "x"}')
    assert asked["asks"] == "approval"
    assert (await decide(api, asked, mine, approved=True)).status_code == 200
    await api.ended(asked["task_id"], mine)
    seen = await api.session(session, mine)
    assert [one["type"] for one in outputs_in(seen)] == ["operation_status"]
    (work,) = seen["operations"]
    assert "asks" not in work
    done = await api.http.post(
        f"/api/chat/operations/{work['operation_id']}/complete",
        json={"success": True, "result": "made"},
        headers={"x-api-key": SERVICE_KEY},
    )
    assert done.status_code == 200
    assert (await api.ended(work["task_id"], mine)).text.startswith("The work of outside_work has ended")


async def test_a_cancel_while_an_approved_call_runs_ends_it(api: RunningApi, tool: DropTable) -> None:
    mine = api.as_user()
    session, (asked,) = await ask(api, mine, drop("held"))
    tool.hold = asyncio.Event()
    try:
        assert (await decide(api, asked, mine, approved=True)).status_code == 200
        async with asyncio.timeout(LIMIT):
            while "held" not in tool.dropped:
                await asyncio.sleep(0.02)
        cancelled = await api.http.post(f"/api/chat/tasks/{asked['task_id']}/cancel", headers=mine)
        assert cancelled.json()["cancelled"] is True
    finally:
        tool.hold.set()
        tool.hold = None
    seen = await api.session(session, mine)
    (output,) = outputs_in(seen)
    assert (output["type"], output["error"]) == ("error", "interrupted")
    assert seen["operations"] == []


async def test_a_native_client_gets_the_chunk_and_the_parts_that_it_knows(api: RunningApi, tool: DropTable) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    body = {"message": drop("n1", "n2")}
    path, accept = f"/api/chat/sessions/{session}/stream", {"accept": "tool-approval-request"}
    _, turn = await api.read("POST", path, json=body, headers=mine, params=accept)
    requests = [chunk for chunk in turn.chunks if chunk["type"] == "tool-approval-request"]
    assert len(requests) == 2
    assert not [chunk for chunk in turn.chunks if chunk["type"] == "tool-output-available"]
    shown = (await api.session(session, mine, format="ui", **accept))["messages"]
    parts = [part for part in shown[-1]["parts"] if part["type"] == "dynamic-tool"]
    assert {part["approval"]["id"] for part in parts} == {one["approvalId"] for one in requests}
    assert {part["state"] for part in parts} == {"approval-requested"}
    for part, approved in zip(parts, (True, False), strict=True):
        part["state"] = "approval-responded"
        part["approval"] |= {"approved": approved, "reason": "so"}
    posted = {"id": session, "trigger": "submit-message", "messageId": shown[-1]["id"], "messages": shown}
    thief = await api.http.post("/api/chat", json=posted, headers=api.as_user())
    assert thief.status_code == 404
    for _ in ("as it was decided", "as it is sent again"):
        client = StrictClient(continues=True)
        reply, _ = await api.read("POST", "/api/chat", json=posted, headers=mine, params=accept, client=client)
        assert reply.status_code == 200
        starts = [chunk["messageId"] for chunk in client.chunks if chunk["type"] == "start"]
        assert starts == [shown[-1]["id"]]
        assert [chunk["type"] for chunk in client.chunks].count("finish") == 1
        assert "n1" in tool.dropped
        assert "n2" not in tool.dropped
        assert client.text
    forged = {**posted, "messages": [{**shown[-1], "parts": [{**parts[0], "approval": {"id": "x", "approved": True}}]}]}
    assert (await api.http.post("/api/chat", json=forged, headers=mine)).status_code == 404
    parts[0]["approval"]["approved"], parts[1]["approval"]["approved"] = False, True
    late = await api.http.post("/api/chat", json=posted, headers=mine)
    assert (late.status_code, late.json()["code"]) == (409, "already_completed")


async def test_an_approved_call_whose_executor_died_does_not_run_again(postgres_dsn: str, redis_dsn: str) -> None:
    tool = DropTable()

    def toolbox(settings: Settings) -> Toolbox:
        return TablesToolbox(settings, tool)

    async with running_api(postgres_dsn, redis_dsn, toolbox=toolbox, tool_approval="drop_*=ask") as api:
        mine = api.as_user()
        session, (asked,) = await ask(api, mine, drop("once"))
    async with running_api(postgres_dsn, redis_dsn, executor=False) as api:
        assert (await decide(api, asked, mine, approved=True)).status_code == 200
        async with api.resources.database.connection() as c:  # as an executor that began to run it and died
            await c.execute(
                "UPDATE tasks SET outcome = outcome || '{\"begun\": true}', status = 'running', attempt = 2,"
                " owner = '00000000-0000-4000-8000-000000000000' WHERE operation_id = $1",
                asked["operation_id"],
            )
        async with executing(api.resources.settings, toolbox):
            continued = await api.ended(asked["task_id"], mine)
        assert tool.dropped == []
        (output,) = outputs_in(await api.session(session, mine))
        assert output["error"] == "interrupted_unknown_effect"
        assert "unknown" in continued.text

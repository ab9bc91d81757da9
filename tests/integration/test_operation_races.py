"""What else happens to an operation at the moment that matters: cancels, deaths, edits, outcomes that come early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from backend.chat import cancelling, flows, operations, tasks
from backend.chat.completing import complete_operation
from backend.chat.models import Caller, NewMessage, Role, TaskStatus, ToolCallPart, TurnRequest, Usage
from backend.chat.outcomes import Operation, Outcome, ToolWork
from backend.chat.sessions import create_session
from backend.ids import StreamId, TaskId, UserId, new_executor_id, new_session_id
from executor.operations import Operations
from executor.tools.tool import Accepted, Stored, Tool, ToolContext
from tests.e2e.sse import words_for
from tests.fakes.outside_work import OutsideToolbox, OutsideWork, Work
from tests.integration.api_house import LIMIT, ApiHouse, api_house, executing, new_user
from tests.integration.test_api_events import listening
from tests.integration.test_operations import KEY, START, begin, complete, ended, result_of
from tests.servers.redis import RedisNode
from tests.speed import limit

MAKE_AGENT = '/tool outside_work {"use": "save_agent"}'
AN_AGENT = {"agent_json": {"name": "Sorter", "nodes": [{"id": "a"}], "links": []}}


class Hesitant(OutsideWork):
    """Registers, and asks nobody before it is told to go on."""

    registered: asyncio.Future[Operation]
    go_on: asyncio.Event

    async def run(self, call: Work, context: ToolContext) -> Accepted | Stored:
        if call.label != "hesitate":
            return await super().run(call, context)
        work = ToolWork(context.task_id, self.name, context.tool_call_id, call.model_dump(mode="json"), use=call.use)
        operation = await context.operations.register(work)
        Hesitant.registered.set_result(operation)
        await Hesitant.go_on.wait()
        await context.operations.opened(operation)
        return Accepted(operation)


class Hesitating(OutsideToolbox):
    def find(self, name: str) -> Tool[Any] | None:
        return Hesitant() if name == "outside_work" else super().find(name)


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    async with api_house(postgres_dsn, redis_dsn, toolbox=Hesitating) as house:
        yield house


@pytest.fixture(autouse=True)
async def _hesitation() -> None:
    Hesitant.registered = asyncio.get_running_loop().create_future()
    Hesitant.go_on = asyncio.Event()


async def over(api: ApiHouse, session: str, mine: dict[str, str]) -> None:
    async with asyncio.timeout(LIMIT):
        while (await api.session(session, mine))["operations"]:
            await asyncio.sleep(0.05)


async def test_a_cancel_whose_api_died_is_seen_through(api: ApiHouse) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    async with api.house.database.connection() as c:
        assert await tasks.request_cancel(c, TaskId(started["task_id"]))
    await over(api, session, mine)
    assert result_of(await api.session(session, mine))["error"] == "cancelled"
    kinds = [chunk["type"] for chunk in (await ended(api, started["task_id"], mine)).chunks]
    assert kinds[-3:] == ["finish-step", "abort", "finish"]


async def test_a_cancel_whose_api_died_half_way_leaves_one_tool_message(api: ApiHouse) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    async with api.house.database.connection() as c:
        wished = await tasks.request_cancel(c, TaskId(started["task_id"]))
        assert wished is not None
        dead = new_executor_id()
        assert await tasks.claim_task(c, wished.id, dead, seen_owner=None, seen_attempt=1, only_active=False)
    await over(api, session, mine)
    assert result_of(await api.session(session, mine))["error"] == "cancelled"
    kinds = [chunk["type"] for chunk in (await ended(api, started["task_id"], mine)).chunks]
    assert kinds == [
        "start",
        "start-step",
        "tool-input-available",
        "tool-output-error",
        "finish-step",
        "abort",
        "finish",
    ]


async def test_a_turn_that_is_cancelled_as_the_outcome_comes_keeps_the_result(api: ApiHouse) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    call = '/tool outside_work {"use": "save_agent", "label": "hesitate"}'
    asking = asyncio.create_task(api.say(session, call, mine))
    async with asyncio.timeout(LIMIT):
        operation = await Hesitant.registered
    assert (await complete(api, operation.id, result=AN_AGENT)).status_code == 200
    assert (await api.http.post(f"/api/chat/sessions/{session}/cancel", headers=mine)).json()["cancelled"]
    await asking
    told = await ended(api, operation.task_id, mine)
    assert told.text == "The work of outside_work has ended: The agent “Sorter” is in your library."
    assert result_of(await api.session(session, mine))["type"] == "agent_saved"


async def test_a_call_that_was_cut_short_gets_its_result_when_that_comes_later(api: ApiHouse) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    asking = asyncio.create_task(api.say(session, '/tool outside_work {"label": "hesitate"}', mine))
    async with asyncio.timeout(LIMIT):
        operation = await Hesitant.registered
    async with api.house.database.connection() as c:  # accepted, and the call is cut short before it knows
        assert await operations.open_operation(c, operation, "0-0", limit=60)
    await api.http.post(f"/api/chat/sessions/{session}/cancel", headers=mine)
    await asking
    assert result_of(await api.session(session, mine))["error"] == "interrupted"
    assert (await complete(api, operation.id, result="done")).status_code == 200
    assert (await ended(api, operation.task_id, mine)).text.endswith("The work is done.")
    assert result_of(await api.session(session, mine))["outputs"] == "done"


async def test_pages_do_not_hear_of_a_start_after_the_end(api: ApiHouse) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    async with listening(api, mine) as hints:
        asking = asyncio.create_task(api.say(session, '/tool outside_work {"label": "hesitate"}', mine))
        async with asyncio.timeout(LIMIT):
            operation = await Hesitant.registered
        async with listening(api, mine) as late:
            assert late.seen[0]["operations"] == [], "its service has not accepted it"
        assert (await complete(api, operation.id)).status_code == 200
        await hints.until("operation-finished", operation_id=operation.id)
        Hesitant.go_on.set()
        await asking
        await hints.until("turn-finished", task_id=operation.task_id)
        assert not [hint for hint in hints.seen if hint["type"] == "operation-started"]


async def test_what_a_user_asked_for_in_nobodys_session_is_the_users(api: ApiHouse) -> None:
    mine = api.as_user()
    session = await api.new_session()
    client = await api.say(session, MAKE_AGENT, mine)
    (started,) = [chunk["output"] for chunk in client.chunks if chunk["type"] == "tool-output-available"]
    assert (await complete(api, started["operation_id"], result=AN_AGENT)).status_code == 200
    assert result_of(await api.session(session, mine))["type"] == "agent_saved"
    found = await api.http.get("/api/library/agents", headers=mine)
    assert [agent["name"] for agent in found.json()["agents"]] == ["Sorter"]


async def test_a_continuation_does_not_overtake_messages_that_waited_before_its_outcome_came(api: ApiHouse) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    path = f"/api/chat/sessions/{session}/stream"
    said = [f"/stream {words_for(2)} 10", "/say before", "/say after"]
    asking = [asyncio.create_task(api.read("POST", path, json={"message": said[0]}, headers=mine))]
    await api.active_stream(session, mine)
    for waiting, text in enumerate(said[1:], 1):
        asking.append(asyncio.create_task(api.read("POST", path, json={"message": text}, headers=mine)))
        async with asyncio.timeout(LIMIT):
            while len((await api.session(session, mine))["queued"]) < waiting:
                await asyncio.sleep(0.02)
        if waiting == 1:
            assert (await complete(api, started["operation_id"])).status_code == 200
    await asyncio.gather(*asking)
    told = await ended(api, started["task_id"], mine)
    rows = (await api.session(session, mine))["messages"]
    answers = [row["content"] for row in rows if row["role"] == "assistant"]
    assert answers[-3:] == ["before", told.text, "after"]


async def test_the_model_is_told_the_result_when_the_call_has_given_way_to_another_answer(api: ApiHouse) -> None:
    mine = api.as_user()
    session, started = await begin(api, mine)
    again = {"id": session, "messages": [], "trigger": "regenerate-message"}
    answer, _ = await api.read("POST", "/api/chat", json=again, headers=mine)
    assert answer.status_code == 200
    assert (await complete(api, started["operation_id"], success=False, error="No more wood.")).status_code == 200
    told = await ended(api, started["task_id"], mine)
    assert told.text == "The work of outside_work has ended: No more wood."


async def test_a_continuation_that_dies_in_a_call_of_its_own_takes_up_that_call(
    postgres_dsn: str, redis_dsn: str
) -> None:
    async with api_house(postgres_dsn, redis_dsn, executor=False) as api:
        user = new_user()
        task = await _dies_in_a_call(api, Caller(UserId(user), "192.0.2.3"))
        async with executing(api.house.settings):
            told = await ended(api, task, api.as_user(user))
    outputs = [chunk["toolCallId"] for chunk in told.chunks if chunk["type"] == "tool-output-available"]
    assert outputs == ["call_of_the_turn", "call_of_the_continuation"]
    assert told.chunks[-1]["messageMetadata"]["status"] == "completed"


async def _dies_in_a_call(api: ApiHouse, caller: Caller) -> str:
    """The task of an operation whose continuation has called a tool when its executor died."""
    house, session = api.house, new_session_id()
    turn, _ = await flows.start_turn(house, caller, session, TurnRequest("Go."), message_key=None, create_session=True)
    assert await cancelling.end_unowned(house, turn, TaskStatus.COMPLETED)
    async with house.database.connection() as c:
        operation = await operations.register(c, session, ToolWork(turn.id, "a_tool", "call_of_the_turn", {}), limit=60)
        await operations.open_operation(c, operation, "0-0", limit=60)
    assert (await complete_operation(house, operation.id, Outcome(True, "ok"))).next_turn is not None
    call = ToolCallPart("call_of_the_continuation", "find_library_agent", {"query": "mail"})
    async with house.database.transaction() as c:
        dead = new_executor_id()
        claim = await tasks.claim_task(c, operation.task_id, dead, seen_owner=None, seen_attempt=1)
        assert claim is not None
        await tasks.commit_step(c, claim, step=1, checkpoint=StreamId(claim.fence, 5), usage=Usage())
        await flows.append_said(c, claim, 2, [NewMessage(Role.ASSISTANT, (call,))])
        await tasks.commit_step(c, claim, step=2, checkpoint=StreamId(claim.fence, 9), usage=Usage())
    return operation.task_id


async def test_work_for_which_there_is_no_room_is_refused_at_once(api: ApiHouse) -> None:
    house = api.house
    session = new_session_id()
    async with house.database.connection() as c:
        await create_session(c, session, None, {})
    crowded = Operations(house, session, refuse)
    work = ToolWork(TaskId("a turn"), "long_work", "call_1", {})
    operation, again = await crowded.begin_beside(work, lambda: asyncio.sleep(0))
    assert not again
    assert operation.result is not None
    assert operation.result["error"] == "service_unavailable"
    assert await crowded.find("call_1") is not None
    assert (await api.session(session))["operations"] == []


def refuse(work: Coroutine[Any, Any, None]) -> bool:
    work.close()
    return False


async def test_progress_is_taken_while_redis_does_not_answer(postgres_dsn: str, private_redis: RedisNode) -> None:
    async with api_house(postgres_dsn, private_redis.dsn, toolbox=OutsideToolbox) as api:
        mine = api.as_user()
        session, started = await begin(api, mine, START)
        private_redis.pause()
        try:
            path = f"/api/chat/operations/{started['operation_id']}/progress"
            async with asyncio.timeout(limit(5)):
                answer = await api.http.post(path, json={"percent": 7}, headers=KEY)
            assert answer.status_code == 202
        finally:
            private_redis.resume()
        (operation,) = (await api.session(session, mine))["operations"]
        assert operation["progress"] == {"percent": 7, "message": None}


async def test_a_feed_of_a_session_ends_when_that_becomes_another_users(
    postgres_dsn: str, private_redis: RedisNode
) -> None:
    async with api_house(postgres_dsn, private_redis.dsn) as api:
        session = await api.new_session()
        async with listening(api, session_id=session) as hints:
            taken = await api.http.patch(f"/api/chat/sessions/{session}/assign-user", headers=api.as_user())
            assert taken.status_code == 200
            await private_redis.kill()  # whoever may have missed something gets a new snapshot
            await private_redis.start()
            async with asyncio.timeout(LIMIT):
                while len(api.app.open_streams):
                    await asyncio.sleep(0.05)
        assert [hint["type"] for hint in hints.seen] == ["snapshot"]

"""Tests of messages for a running turn (`on_busy: steer`): where they are read and shown, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import BaseModel

from backend.chat.protocol.tool_responses import NoResults, ToolResponse
from executor.tools.context import ToolContext
from executor.tools.tool import Tool, Toolbox
from tests.e2e.sse import open_stream
from tests.faults.scale import new_seed, scale
from tests.integration.running_api import LIMIT, RunningApi, running_api
from tests.sse_client import StrictClient

STEP = '/tool gate {"step":1}'
AGAIN = '/tool gate {"step":2}'
LAST = "/say the plan was carried out"


class Step(BaseModel):
    step: int = 1


class Gate(Tool[Step]):
    """A tool whose calls last until a test opens the gate for one of them."""

    name: ClassVar[str] = "gate"
    description: ClassVar[str] = "Waits."
    input_type = Step

    def __init__(self) -> None:
        self.reached: asyncio.Queue[int] = asyncio.Queue()
        self.open: asyncio.Queue[None] = asyncio.Queue()

    async def run(self, call: Step, context: ToolContext) -> ToolResponse:
        self.reached.put_nowait(call.step)
        await self.open.get()
        return NoResults(message="The gate is open.", session_id=context.session_id)


class Held(Gate):
    """The same for a tool whose calls the user must approve."""

    name: ClassVar[str] = "held"


@dataclass
class Turn:
    """A session of a user, with a turn whose tool waits at the gate."""

    api: RunningApi
    gate: Gate
    mine: dict[str, str]
    session: str
    reading: asyncio.Task[tuple[httpx.Response, StrictClient]]
    task: str

    async def post(self, text: str, **body: Any) -> httpx.Response:
        path = f"/api/chat/sessions/{self.session}/stream"
        body = {"message": text, "on_busy": "steer", **body}
        return await self.api.http.post(path, json=body, headers=self.mine)

    async def steer(self, text: str, **body: Any) -> str:
        """Steers the turn. Returns the id of the message."""
        answer = await self.post(text, **body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["task_id"] == self.task
        id: str = answer.json()["message_id"]
        return id

    async def goes_on(self) -> None:
        """Lets the tool end, so that the turn makes its next step."""
        self.gate.open.put_nowait(None)

    async def ended(self) -> StrictClient:
        async with asyncio.timeout(LIMIT):
            return (await self.reading)[1]

    async def history(self, **params: Any) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = (await self.api.session(self.session, self.mine, **params))["messages"]
        return messages

    async def idle(self) -> list[dict[str, Any]]:
        return await idle(self.api, self.session, self.mine)


async def idle(api: RunningApi, session: str, mine: dict[str, str]) -> list[dict[str, Any]]:
    """Waits until nothing runs or waits in the session. Returns its messages as the AI SDK has them."""
    async with asyncio.timeout(LIMIT):
        while "active_stream" in (found := await api.session(session, mine, format="ui")) or found["queued"]:
            await asyncio.sleep(0.02)
    messages: list[dict[str, Any]] = found["messages"]
    return messages


@pytest.fixture(scope="module")
async def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
async def held() -> Held:
    return Held()


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str, gate: Gate, held: Held) -> AsyncIterator[RunningApi]:
    settings = {"max_waiting_turns": 60, "max_waiting_steers": 50, "tool_approval": "held=ask"}
    async with running_api(postgres_dsn, redis_dsn, toolbox=lambda _: Toolbox([gate, held]), **settings) as api:
        yield api


@asynccontextmanager
async def at_the_gate(
    api: RunningApi, gate: Gate, text: str = f"{STEP}\n/then\n{LAST}", **params: Any
) -> AsyncIterator[Turn]:
    """Starts a turn and waits until its tool runs."""
    mine = api.as_user()
    session = await api.new_session(mine)
    path = f"/api/chat/sessions/{session}/stream"
    begun = api.read("POST", path, json={"message": text, "message_id": "q"}, headers=mine, params=params)
    reading = asyncio.create_task(begun)
    async with asyncio.timeout(LIMIT):
        assert await gate.reached.get() == 1
    active = await api.active_stream(session, mine)
    yield Turn(api, gate, mine, session, reading, active["task_id"])
    await asyncio.wait_for(reading, LIMIT)


def kinds_of(message: dict[str, Any]) -> list[str]:
    return [part["type"] for part in message["parts"]]


PART_OF = {
    "start-step": "step-start",
    "tool-input-available": "dynamic-tool",
    "data-steering": "data-steering",
    "text-start": "text",
}


def shown_by(client: StrictClient) -> list[str]:
    """Returns the kinds of the parts that a stream makes, in order."""
    return [PART_OF[chunk["type"]] for chunk in client.chunks if chunk["type"] in PART_OF]


def said_in(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def taken_in(message: dict[str, Any]) -> list[str]:
    """Returns the texts of the user messages that an answer has taken in."""
    return [part["data"]["parts"][0]["text"] for part in message["parts"] if part["type"] == "data-steering"]


async def test_a_steered_message_is_read_at_the_next_step_and_shown_there(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        id = await turn.steer("/say something else", message_id="s")
        waiting = (await api.session(turn.session, turn.mine))["queued"]
        assert [(one["message_id"], one["steers"]) for one in waiting] == [("s", turn.task)]
        await turn.goes_on()
        live = await turn.ended()
    assert id == "s"
    assert live.text == "something else"
    question, answer = await turn.idle()
    assert (question["id"], said_in(answer)) == ("q", "something else")
    assert kinds_of(answer) == ["step-start", "dynamic-tool", "data-steering", "step-start", "text"]
    assert shown_by(live) == kinds_of(answer)
    assert answer["parts"][2] == {
        "type": "data-steering",
        "id": "s",
        "data": {"id": "s", "role": "user", "parts": [{"type": "text", "text": "/say something else"}]},
    }
    rows = await turn.history()
    assert [row["role"] for row in rows] == ["user", "assistant", "tool", "user", "assistant"]
    assert (rows[3]["id"], rows[3]["task_id"], rows[3]["content"]) == ("s", turn.task, "/say something else")
    exported = await api.http.get(f"/api/chat/sessions/{turn.session}/export", headers=turn.mine)
    assert "\n> **You:**\n> /say something else\n" in exported.text
    replayed = await api.ended(turn.task, turn.mine)
    assert shown_by(replayed) == kinds_of(answer)


async def test_a_client_of_ai_7_gets_the_sdk_s_own_chunk(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        await turn.steer("/say more", message_id="s")
        await turn.goes_on()
        await turn.ended()
    path = f"/api/chat/tasks/{turn.task}/stream?accept=steering-message"
    whole = (await api.http.get(path, headers=turn.mine)).text
    expected = '{"type":"steering-message","id":"s","parts":[{"type":"text","text":"/say more"}]}'
    assert whole.count(expected) == 1
    assert "data-steering" not in whole
    [_, answer] = await turn.history(format="ui", accept="steering-message")
    assert answer["parts"][2] == {
        "type": "steering-message",
        "id": "s",
        "parts": [{"type": "text", "text": "/say more"}],
    }


async def test_the_same_message_is_accepted_once_before_and_after_it_was_taken_in(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        assert await turn.steer("/say once", message_id="s") == await turn.steer("/say once", message_id="s")
        other = await turn.post("/say another text", message_id="s")
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        unnamed = await turn.steer("/say once more")
        await turn.goes_on()
        assert (await turn.ended()).text == "once more"
    assert await turn.steer("/say once", message_id="s") == "s"
    _, answer = await turn.idle()
    assert [part["id"] for part in answer["parts"] if part["type"] == "data-steering"] == ["s", unnamed]


async def test_fifty_messages_of_two_tabs_are_taken_in_once_each_and_in_order(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate, f"{STEP}\n/then\n{AGAIN}\n/then\n{LAST}") as turn:
        texts = [f"/say number {n}" for n in range(49)]
        for first, second in zip(texts[::2], [*texts[1::2], ""], strict=True):  # both tabs at the same time
            await asyncio.gather(*(turn.steer(text) for text in (first, second) if text))
        await turn.steer(f"{AGAIN}\n/then\n/say that was all")
        refused = await turn.post("/say one too many")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_steers")
        assert "retry-after" in refused.headers
        await turn.goes_on()
        async with asyncio.timeout(LIMIT):
            assert await gate.reached.get() == 2
        await turn.steer("/say now there is room again")
        await turn.goes_on()
        assert (await turn.ended()).text == "now there is room again"
    _, answer = await turn.idle()
    taken = taken_in(answer)
    assert sorted(taken[:49]) == sorted(texts)
    assert [text for text in taken if text in texts[::2]] == texts[::2]
    assert taken[50:] == ["/say now there is room again"]


async def test_a_message_that_comes_too_late_becomes_a_turn_behind_those_that_wait(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate, f"{STEP}\n/then\n/stream 40 20") as turn:
        await turn.goes_on()
        async with asyncio.timeout(LIMIT):
            while not (await api.active_stream(turn.session, turn.mine))["last_message_id"]:
                await asyncio.sleep(0.02)
        queued = asyncio.create_task(turn.post("/say queued", on_busy="queue"))
        async with asyncio.timeout(LIMIT):
            while not (await api.session(turn.session, turn.mine))["queued"]:
                await asyncio.sleep(0.02)
        first, second = await turn.steer("/say late"), await turn.steer("/say later")
        await turn.ended()
        await queued
    messages = await turn.idle()
    assert [said_in(message) for message in messages[2:]] == [
        "/say queued", "queued", "/say late", "late", "/say later", "later",
    ]  # fmt: skip
    assert (messages[4]["id"], messages[6]["id"]) == (first, second)
    again = await turn.post("/say late", message_id=first)
    assert again.status_code == 200, "it has a turn of its own"


async def test_a_message_in_an_idle_session_is_an_ordinary_turn(api: RunningApi) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    assert (await api.say(session, "/say hello", mine, on_busy="steer")).text == "hello"


async def test_a_stop_keeps_the_messages_that_wait_and_answers_none(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        await turn.steer("/say never said", message_id="s")
        stopped = await api.http.post(f"/api/chat/tasks/{turn.task}/cancel", headers=turn.mine)
        assert stopped.json()["cancelled"] is True
        live = await turn.ended()
        gate.open.put_nowait(None)
        await asyncio.wait_for(gate.open.get(), LIMIT)  # the call was cancelled, so nobody else has taken this
    messages = await turn.idle()
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["metadata"]["status"] == "cancelled"
    assert kinds_of(messages[1]) == ["step-start", "dynamic-tool", "data-steering"]
    assert shown_by(live) == kinds_of(messages[1])
    assert (await api.say(turn.session, "/say go on", turn.mine)).text == "go on"
    again = await turn.post("/say never said", message_id="s")
    assert (again.status_code, again.json()["task_id"]) == (202, turn.task)


async def test_a_stop_that_names_a_message_ends_the_turn_that_has_taken_it_in(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        await turn.steer(f"{AGAIN}\n/then\n/say never said", message_id="s")
        await turn.goes_on()
        async with asyncio.timeout(LIMIT):
            assert await gate.reached.get() == 2
        named = {"message_id": "s"}
        stopped = await api.http.post(f"/api/chat/sessions/{turn.session}/cancel", params=named, headers=turn.mine)
        assert stopped.json()["cancelled"] is True
        live = await turn.ended()
    assert live.chunks[-1]["messageMetadata"]["status"] == "cancelled"
    assert "never said" not in live.text


async def test_a_waiting_message_can_be_removed_and_changed(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        await turn.steer("/say removed", message_id="r")
        await turn.steer("/say typo", message_id="t")
        gone = await api.http.post(
            f"/api/chat/sessions/{turn.session}/cancel", params={"message_id": "r"}, headers=turn.mine
        )
        assert gone.json()["cancelled"] is True
        edit = {
            "id": turn.session,
            "messageId": "t",
            "messages": [{"id": "t", "role": "user", "parts": [{"type": "text", "text": "/say mended"}]}],
        }
        changed = await api.http.post("/api/chat", json=edit, headers=turn.mine)
        assert changed.status_code == 202, changed.text
        await turn.goes_on()
        assert (await turn.ended()).text == "mended"
    _, answer = await turn.idle()
    assert taken_in(answer) == ["/say mended"]


async def test_another_answer_and_an_edit_leave_the_message_with_the_first_answer(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate, f"{STEP}\n/then\n/say first") as turn:
        await turn.steer("/say steered", message_id="s")
        await turn.goes_on()
        await turn.ended()
    for body, said in (
        ({"trigger": "regenerate-message", "messages": []}, "first"),
        ({"messageId": "q", "messages": [text_message("q", "/say edited")]}, "edited"),
    ):
        if said == "first":
            gate.open.put_nowait(None)
        answer, client = await api.read("POST", "/api/chat", json={"id": turn.session, **body}, headers=turn.mine)
        assert answer.status_code == 200, answer.text
        assert client.text == said
    gate.reached.get_nowait()
    question, answer_shown = await turn.idle()
    assert (said_in(question), said_in(answer_shown), taken_in(answer_shown)) == ("/say edited", "edited", [])
    branches = (await api.session(turn.session, turn.mine, format="ui"))["branches"]
    assert [(one["id"], one["count"]) for one in branches] == [("q", 2)]


async def test_rows_from_a_steered_message_on_show_no_alternatives_of_it(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate, f"{STEP}\n/then\n/say first") as turn:
        await turn.steer("/say steered", message_id="s")
        await turn.goes_on()
        await turn.ended()
    edit = {"id": turn.session, "messageId": "q", "messages": [text_message("q", "/say edited")]}
    await api.read("POST", "/api/chat", json=edit, headers=turn.mine)
    leaf = {"message_id": f"msg_{turn.task}"}
    switched = await api.http.post(f"/api/chat/sessions/{turn.session}/leaf", json=leaf, headers=turn.mine)
    assert switched.status_code == 200, switched.text
    page = await api.session(turn.session, turn.mine, limit=2)
    assert [row["role"] for row in page["messages"]] == ["user", "assistant"]
    assert (page["messages"][0]["id"], page["branches"]) == ("s", [])


async def test_a_page_that_lists_the_message_goes_on_after_its_answer(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        await turn.steer("/say steered", message_id="s")
        await turn.goes_on()
        await turn.ended()
    answer_id = f"msg_{turn.task}"
    for n, ids in enumerate((["q", answer_id, "s"], ["q", "s", answer_id], ["q", answer_id], ["q"])):
        messages = [text_message(id, "x") for id in ids] + [text_message(f"n{n}", f"/say {n}")]
        if n:
            messages[-1:-1] = [text_message(f"n{n - 1}", "x")]
        posted = await api.read("POST", "/api/chat", json={"id": turn.session, "messages": messages}, headers=turn.mine)
        assert posted[1].text == str(n)
    shown = await turn.idle()
    assert [message["id"] for message in shown if message["role"] == "user"] == ["q", "n0", "n1", "n2", "n3"]


async def test_a_message_that_an_answer_has_read_cannot_be_edited_by_itself(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        await turn.steer("/say steered", message_id="s")
        await turn.goes_on()
        await turn.ended()
    edit = {"id": turn.session, "messageId": "s", "messages": [text_message("s", "/say edited")]}
    refused = await api.http.post("/api/chat", json=edit, headers=turn.mine)
    assert (refused.status_code, refused.json()["code"]) == (409, "message_taken_in")
    edit["messages"] = [text_message("s", "/say steered")]
    assert (await api.http.post("/api/chat", json=edit, headers=turn.mine)).status_code == 202
    assert len(await turn.idle()) == 2


async def test_a_message_during_an_approved_call_is_read_when_it_has_ended(api: RunningApi, held: Held) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    asked = await api.say(session, '/tool held {"step":1}\n/tool held {"step":2}', mine)
    waits = [chunk["output"] for chunk in asked.chunks if chunk["type"] == "tool-output-available"]
    for number, wait in enumerate(waits, 1):
        url = f"/api/chat/operations/{wait['operation_id']}/answer"
        assert (await api.http.post(url, json={"approved": True}, headers=mine)).status_code == 200
        async with asyncio.timeout(LIMIT):
            await held.reached.get()
        path, body = f"/api/chat/sessions/{session}/stream", {"message": f"/say steered {number}", "on_busy": "steer"}
        assert (await api.http.post(path, json=body, headers=mine)).status_code == 202
        held.open.put_nowait(None)
        await api.ended(wait["task_id"], mine)
    shown = await idle(api, session, mine)
    assert [(message["role"], said_in(message), taken_in(message)) for message in shown[2:]] == [
        ("assistant", "", []),  # the model goes on after the last decision, so this message becomes a turn
        ("user", "/say steered 1", []),
        ("assistant", "steered 1", []),
        ("assistant", "steered 2", ["/say steered 2"]),
    ]


async def test_another_user_cannot_steer(api: RunningApi, gate: Gate) -> None:
    async with at_the_gate(api, gate) as turn:
        body = {"message": "/say mine", "on_busy": "steer"}
        path = f"/api/chat/sessions/{turn.session}/stream"
        assert (await api.http.post(path, json=body, headers=api.as_user())).status_code == 404
        await turn.goes_on()
        assert (await turn.ended()).text == "the plan was carried out"


async def test_messages_at_any_moment_of_a_turn_are_used_once(api: RunningApi, gate: Gate) -> None:
    """Two tabs each send one after a random number of events, so some come at the moment in which the turn ends."""
    seed = new_seed()
    print(f"FAULT_SEED={seed}")
    chance = Random(seed)
    for _ in range(scale(8, 300)):
        gate.open.put_nowait(None)
        await one_race(api, chance.randrange(1, 24), chance.randrange(1, 24))
        await asyncio.wait_for(gate.reached.get(), LIMIT)


async def one_race(api: RunningApi, *moments: int) -> None:
    mine = api.as_user()
    session = await api.new_session(mine)
    path = f"/api/chat/sessions/{session}/stream"

    async def steer(tab: int, task: str, after: int) -> None:
        async with open_stream(api.http, "GET", f"/api/chat/tasks/{task}/stream", headers=mine) as stream:
            await stream.until(after)
        body = {"message": f"/say of tab {tab}", "message_id": f"s{tab}", "on_busy": "steer"}
        answer = await api.http.post(path, json=body, headers=mine)
        assert answer.status_code in (200, 202), answer.text

    text = f"/stream 4 15\n{STEP}\n/then\n/stream 4 5"
    async with open_stream(api.http, "POST", path, json={"message": text}, headers=mine) as stream:
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*(steer(tab, stream.task_id, after) for tab, after in enumerate(moments)))
            await stream.rest()
    shown = await idle(api, session, mine)
    used = [part["id"] for message in shown for part in message["parts"] if part["type"] == "data-steering"]
    used += [message["id"] for message in shown if message["role"] == "user"]
    assert sorted(used)[:2] == ["s0", "s1"], shown
    assert len(used) == 3, shown
    for asked, answer in zip(shown[::2], shown[1::2], strict=True):
        taken = [part["id"] for part in answer["parts"] if part["type"] == "data-steering"]
        last = [asked["id"], *taken][-1]  # the scripted model answers the last one
        if last.startswith("s"):
            assert said_in(answer).endswith(f"of tab {last[1:]}"), shown


def text_message(id: str, text: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}

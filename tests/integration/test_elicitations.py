"""What tool servers ask the user in the middle of a call: real servers of both protocols, in a whole service."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from executor.mcp.inputs import MAX_QUESTIONS
from executor.mcp.tool import MAX_ROUNDS
from tests.fakes.asking_mcp_server import FORM, LINK
from tests.fakes.running import words_in
from tests.integration.mcp_bench import HERE, LIMIT, bench, http_server
from tests.integration.running_api import RunningApi, running_api
from tests.servers.ports import free_port
from tests.sse_client import StrictClient

MODULE = "tests.fakes.asking_mcp_server"
PROGRAM = {"command": sys.executable, "args": ["-m", MODULE]}


@dataclass
class Asking:
    api: RunningApi
    marks: Path


@pytest.fixture(scope="module")
async def asking(postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asking]:
    """An older server over stdio (`old`) and over HTTP (`web`), and a newer one (`new`)."""
    folder = tmp_path_factory.mktemp("asking")
    marks = folder / "marks"
    marks.touch()
    async with AsyncExitStack() as stack:
        port = free_port()
        await stack.enter_async_context(http_server(port, MODULE, OLDER="1", MARKS=str(marks)))
        older = {**HERE, "OLDER": "1", "MARKS": str(marks)}
        servers = {
            "old": {**PROGRAM, "env": older, "timeout": LIMIT, "roots": True, "sampling": {"calls": 2, "ask": False}},
            "hasty": {"url": f"http://127.0.0.1:{port}/mcp", "elicitation_wait": 0.6},
            "web": {"url": f"http://127.0.0.1:{port}/mcp"},
            "new": {**PROGRAM, "env": {**HERE, "MARKS": str(marks)}, "roots": [str(folder)], "sampling": True},
        }
        there = await stack.enter_async_context(bench(folder, servers))
        names = {"old_book", "web_book", "new_reserve", "hasty_book"}
        await there.until(lambda: names <= there.offered)
        api = await stack.enter_async_context(
            running_api(
                postgres_dsn,
                redis_dsn,
                toolbox=lambda _: there.toolbox,
                executor_concurrency=16,
                tool_approval="new_confirm=ask",
            )
        )
        yield Asking(api, marks)


class Turn:
    """A turn that runs beside the test, of a page that shows questions unless `accept` says otherwise."""

    def __init__(self, api: RunningApi, mine: dict[str, str], session: str, *calls: str, accept: str = "questions"):
        self.api, self.mine, self.session = api, mine, session
        self.client = StrictClient()
        text = "\n".join(f"/tool {call}" for call in calls)
        path = f"/api/chat/sessions/{session}/stream"
        self._reading = asyncio.create_task(
            api.read("POST", path, client=self.client, params={"accept": accept}, json={"message": text}, headers=mine)
        )

    async def end(self) -> list[dict[str, Any]]:
        """Returns the outputs of the turn's calls."""
        reply, _ = await self._reading
        assert reply.status_code == 200, reply.text
        return [chunk["output"] for chunk in self.client.chunks if chunk["type"] == "tool-output-available"]

    async def question(self) -> dict[str, Any]:
        """Returns the operation that stands open for the user."""
        async with asyncio.timeout(LIMIT):
            while not (open_ := [one for one in await self.operations() if "asks" in one]):
                await asyncio.sleep(0.02)  # between two looks of a bounded wait
        (found,) = open_
        return found

    async def operations(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.api.session(self.session, self.mine))["operations"]
        return found


async def begun(asking: Asking, *calls: str, accept: str = "questions") -> Turn:
    mine = asking.api.as_user()
    return Turn(asking.api, mine, await asking.api.new_session(mine), *calls, accept=accept)


async def answer(turn: Turn, asked: dict[str, Any], mine: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    path = f"/api/chat/operations/{asked['operation_id']}/answer"
    return await turn.api.http.post(path, json=body, headers=turn.mine if mine is None else mine)


def words_of(output: dict[str, Any]) -> Any:
    return output["outputs"]["result"] if isinstance(output["outputs"], dict) else output["outputs"][0]["text"]


@pytest.mark.parametrize("server", ["old", "web"])
async def test_a_call_waits_for_the_answer_of_the_user(asking: Asking, server: str) -> None:
    turn = await begun(asking, f'{server}_book {{"days": 3}}')
    asked = await turn.question()
    assert asked["asks"]["kind"] == "elicitation"
    assert (asked["asks"]["server"], asked["asks"]["text"]) == (server, "Where do you go for 3 days?")
    city = asked["asks"]["form"]["properties"]["city"]
    assert city == {"type": "string", "title": "City", "minLength": 2, "default": "Rome"}
    assert (await answer(turn, asked, asking.api.as_user(), answer={"city": "Oslo"})).status_code == 404
    for wrong in ({"city": "R"}, {"city": 1}, {"people": "two"}, {"street": "x"}):
        refused = await answer(turn, asked, answer=wrong)
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_error"), wrong
    assert (await turn.question())["operation_id"] == asked["operation_id"], "the form stays open"
    given = {"city": "Oslo", "people": 2}
    both = await asyncio.gather(*(answer(turn, asked, answer=given) for _ in range(2)))
    assert [one.status_code for one in both] == [200, 200]
    assert sum(one.json().get("replayed", False) for one in both) == 1
    late = await answer(turn, asked, answer={"city": "Rome"})
    assert (late.status_code, late.json()["code"]) == (409, "already_completed")
    (output,) = await turn.end()
    assert words_of(output) == "accept {'city': 'Oslo', 'people': 2}"
    shown = [chunk for chunk in turn.client.chunks if chunk["type"] == "data-question"]
    assert shown[0]["data"]["operation_id"] == asked["operation_id"]
    assert shown[0]["data"]["asks"] == asked["asks"]
    assert shown[-1]["data"] == {"tool_call_id": shown[0]["id"], "closed": True}
    assert await turn.operations() == []


@pytest.mark.parametrize(
    ("body", "told"),
    [({"declined": True}, "decline"), ({"dismissed": True}, "cancel"), ({"approved": False}, "decline")],
)
async def test_a_question_is_declined_or_dismissed(asking: Asking, body: dict[str, Any], told: str) -> None:
    turn = await begun(asking, 'old_book {"days": 1}')
    assert (await answer(turn, await turn.question(), **body)).status_code == 200
    assert words_of((await turn.end())[0]) == told


async def test_a_web_link_is_shown_and_a_link_of_another_scheme_is_not(asking: Asking) -> None:
    turn = await begun(asking, "web_connect")
    asked = await turn.question()
    assert asked["asks"]["url"] == LINK
    assert (await answer(turn, asked, answer={"x": 1})).status_code == 422
    assert (await answer(turn, asked, approved=True)).status_code == 200
    assert words_of((await turn.end())[0]) == "accept"
    refused = await begun(asking, 'old_connect {"url": "javascript:alert(1)"}')
    (output,) = await refused.end()
    assert (output["type"], "link" in output["message"]) == ("error", True)


async def test_a_link_at_which_the_server_has_seen_the_user_needs_no_answer(asking: Asking) -> None:
    turn = await begun(asking, 'old_connect {"visited": true}')
    assert words_of((await turn.end())[0]) == "accept"
    asked = next(chunk["data"] for chunk in turn.client.chunks if chunk["type"] == "data-question")
    async with asyncio.timeout(LIMIT):
        while (await answer(turn, asked, approved=True)).status_code != 410:
            await asyncio.sleep(0.05)  # between two looks of a bounded wait


async def test_without_an_answer_the_call_goes_on_and_the_model_is_told(asking: Asking) -> None:
    turn = await begun(asking, 'hasty_book {"days": 2}')
    (output,) = await turn.end()
    assert words_of(output) == "cancel"
    assert "did not answer within 0.6 s" in output["message"]
    other = await begun(asking, 'old_book {"days": 2}', accept="")
    (output,) = await other.end()
    assert words_of(output) == "cancel"
    assert "cannot show" in output["message"]


async def test_a_user_who_writes_something_else_is_answered_without_the_question(asking: Asking) -> None:
    turn = await begun(asking, 'old_book {"days": 4}')
    asked = await turn.question()
    other = asyncio.create_task(asking.api.say(turn.session, "/stream 3", turn.mine))
    (output,) = await turn.end()
    assert (words_of(output), "went on without" in output["message"]) == ("cancel", True)
    assert (await other).text == "0 1 2 "
    late = await answer(turn, asked, answer={"city": "Rome"})
    assert (late.status_code, late.json()["code"]) == (410, "operation_gone")


async def test_a_stopped_turn_ends_its_question(asking: Asking) -> None:
    turn = await begun(asking, 'old_book {"days": 5}')
    asked = await turn.question()
    assert (await asking.api.http.post(f"/api/chat/sessions/{turn.session}/cancel", headers=turn.mine)).json()[
        "cancelled"
    ]
    await turn.end()
    async with asyncio.timeout(LIMIT):
        while (await answer(turn, asked, answer={"city": "Rome"})).status_code != 410:
            await asyncio.sleep(0.05)  # between two looks of a bounded wait
    assert await turn.operations() == []


async def test_calls_of_two_conversations_are_told_apart_over_http_and_refused_over_stdio(asking: Asking) -> None:
    web = [await begun(asking, f'web_book {{"days": {days}}}') for days in (6, 7)]
    for turn, city in zip(web, ("Bonn", "Kyiv"), strict=True):
        asked = await turn.question()
        await answer(turn, asked, answer={"city": city})
    assert [words_of((await turn.end())[0]) for turn in web] == ["accept {'city': 'Bonn'}", "accept {'city': 'Kyiv'}"]
    first = await begun(asking, 'old_book {"days": 8}')
    asked = await first.question()
    second = await begun(asking, 'old_book {"days": 9}')
    (output,) = await second.end()
    assert (output["type"], "unclear which" in output["message"]) == ("error", True)
    await answer(first, asked, answer={"city": "Rome"})
    assert words_of((await first.end())[0]) == "accept {'city': 'Rome'}"


async def test_only_a_share_of_the_slots_waits_for_users(asking: Asking) -> None:
    waiting = [await begun(asking, 'web_book {"days": 1}') for _ in range(4)]
    asked = [await turn.question() for turn in waiting]
    (output,) = await (await begun(asking, 'web_book {"days": 1}')).end()
    assert (words_of(output), "4 calls wait" in output["message"]) == ("cancel", True)
    for turn, one in zip(waiting, asked, strict=True):
        await answer(turn, one, declined=True)
        await turn.end()


async def test_a_question_of_the_newer_protocol_ends_the_turn_and_the_answer_calls_again(asking: Asking) -> None:
    turn = await begun(asking, 'new_reserve {"days": 31}')
    (pending,) = await turn.end()
    assert (pending["type"], pending["asks"]) == ("operation_started", "elicitation")
    assert pending["question"]["form"]["properties"]["class"] == FORM["properties"]["class"]  # type: ignore[index]
    assert turn.client.chunks[-1]["finishReason"] == "tool-calls"
    asked = await turn.question()
    assert asked["asks"] == pending["question"]
    assert "state" not in json.dumps(asked)
    for wrong in ({}, {"city": "Rome", "mail": "nobody"}, {"city": "Rome", "class": "x"}, {"city": "R", "meals": []}):
        assert (await answer(turn, asked, answer=wrong)).status_code == 422, wrong
    assert (await answer(turn, asked, asking.api.as_user(), declined=True)).status_code == 404
    given = {"city": "Rome", "mail": "a@b.example", "class": "b", "meals": ["fish"]}
    assert (await answer(turn, asked, answer=given)).status_code == 200
    path = f"/api/chat/tasks/{asked['task_id']}/stream"
    _, continued = await asking.api.read("GET", path, headers=turn.mine)
    (output,) = [chunk["output"] for chunk in continued.chunks if chunk["type"] == "tool-output-available"]
    assert words_of(output) == f"accept {given}"
    assert continued.text
    assert [line for line in asking.marks.read_text().splitlines() if "31" in line] == [
        "called 31 None", "called 31 the state",
    ]  # fmt: skip
    (row,) = [one for one in (await asking.api.session(turn.session, turn.mine))["messages"] if one["role"] == "tool"]
    assert words_of(row["parts"][0]["output"]) == f"accept {given}"


async def test_a_call_that_the_user_has_approved_asks_while_its_continuation_waits(asking: Asking) -> None:
    turn = await begun(asking, 'new_confirm {"days": 41}')
    (pending,) = await turn.end()
    assert pending["asks"] == "approval"
    await answer(turn, await turn.question(), approved=True)
    asked = await turn.question()
    assert asked["asks"]["kind"] == "elicitation"
    await answer(turn, asked, answer={"city": "Bern"})
    _, continued = await asking.api.read("GET", f"/api/chat/tasks/{pending['task_id']}/stream", headers=turn.mine)
    (output,) = [chunk["output"] for chunk in continued.chunks if chunk["type"] == "tool-output-available"]
    assert words_of(output) == "accept {'city': 'Bern'}"
    shown = next(chunk["data"] for chunk in continued.chunks if chunk["type"] == "data-question")
    assert shown["tool_call_id"] == next(c["toolCallId"] for c in continued.chunks if "toolCallId" in c)


async def test_two_questions_of_one_call_are_asked_one_after_the_other(asking: Asking) -> None:
    turn = await begun(asking, "new_link")
    (pending,) = await turn.end()
    assert pending["question"]["url"] == LINK
    await answer(turn, await turn.question(), approved=True)
    second = await turn.question()
    assert second["asks"]["text"] == "Sure?"
    await answer(turn, second, declined=True)
    path = f"/api/chat/tasks/{pending['task_id']}/stream"
    _, continued = await asking.api.read("GET", path, headers=turn.mine)
    (output,) = [chunk["output"] for chunk in continued.chunks if chunk["type"] == "tool-output-available"]
    assert words_of(output) == "bank=accept sure=decline"


async def test_a_tool_that_needs_a_link_opened_is_called_again_after_it(asking: Asking) -> None:
    turn = await begun(asking, "old_sign")
    (pending,) = await turn.end()
    assert (pending["asks"], pending["question"]["url"]) == ("elicitation", LINK)
    assert (await answer(turn, await turn.question(), approved=True)).status_code == 200
    _, continued = await asking.api.read("GET", f"/api/chat/tasks/{pending['task_id']}/stream", headers=turn.mine)
    (output,) = [chunk["output"] for chunk in continued.chunks if chunk["type"] == "tool-output-available"]
    assert words_of(output) == "signed"


async def signing(asking: Asking, *links: str) -> tuple[Turn, dict[str, Any]]:
    turn = await begun(asking, f"old_sign_all {json.dumps({'links': links})}")
    (output,) = await turn.end()
    return turn, output


async def result_of(turn: Turn, pending: dict[str, Any]) -> dict[str, Any]:
    path = f"/api/chat/tasks/{pending['task_id']}/stream"
    _, continued = await turn.api.read("GET", path, headers=turn.mine)
    (output,) = [chunk["output"] for chunk in continued.chunks if chunk["type"] == "tool-output-available"]
    found: dict[str, Any] = output
    return found


async def test_all_links_that_a_tool_needs_opened_are_asked_for_one_after_the_other(asking: Asking) -> None:
    links = [f"{LINK}&sign={number}" for number in range(3)]
    turn, pending = await signing(asking, *links, links[0])
    for link in links:
        asked = await turn.question()
        assert (asked["asks"]["url"], asked["asks"]["text"]) == (link, f"Sign {link}.")
        assert (await answer(turn, asked, approved=True)).status_code == 200
    assert words_of(await result_of(turn, pending)) == "all signed"


async def test_a_tool_is_not_called_again_if_the_user_opens_some_links_only(asking: Asking) -> None:
    turn, pending = await signing(asking, f"{LINK}&part=1", f"{LINK}&part=2", f"{LINK}&part=3")
    await answer(turn, await turn.question(), approved=True)
    await answer(turn, await turn.question(), declined=True)
    output = await result_of(turn, pending)
    assert (output["type"], "did not open a link" in output["message"]) == ("error", True)


@pytest.mark.parametrize(
    ("links", "why"),
    [
        ([f"{LINK}&many={number}" for number in range(MAX_QUESTIONS + 1)], f"more than {MAX_QUESTIONS} links"),
        ([f"{LINK}&bad=1", "javascript:alert(1)"], "cannot be shown"),
    ],
)
async def test_nothing_is_asked_if_not_all_links_can_be_asked_for(asking: Asking, links: list[str], why: str) -> None:
    turn, output = await signing(asking, *links)
    assert (output["type"], why in output["message"]) == ("error", True), output
    assert await turn.operations() == []


async def test_a_server_may_ask_the_model_as_often_as_its_file_says_and_the_turn_pays(asking: Asking) -> None:
    turn = await begun(asking, 'old_think {"about": "/stream 3"}')
    (output,) = await turn.end()
    assert words_of(output) == "0 1 2  (endTurn)"
    plain = await begun(asking, "old_folders")
    (roots,) = await plain.end()
    used = [one.client.chunks[-1]["messageMetadata"]["usage"]["outputTokens"] for one in (turn, plain)]
    assert used[0] >= 3, used
    often = await begun(asking, 'old_think {"about": "/stream 1", "times": 3}')
    (output,) = await often.end()
    assert (output["type"], "2 times" in output["message"]) == ("error", True)
    first, second = roots["outputs"]["result"]
    assert first == second, "the root is the folder in which the server works"
    refused = await begun(asking, 'web_think {"about": "/stream 3"}')
    assert (await refused.end())[0]["type"] == "error"


@pytest.mark.parametrize(("body", "words"), [({"answer": {}}, "1 0 1 "), ({"declined": True}, "User rejected")])
async def test_the_user_is_asked_before_the_model_unless_the_file_says_otherwise(
    asking: Asking, body: dict[str, Any], words: str
) -> None:
    turn = await begun(asking, 'new_ponder {"about": "/stream 2"}')
    asked = await turn.question()
    assert asked["asks"]["text"].endswith("/stream 2")
    assert (await answer(turn, asked, **body)).status_code == 200
    (output,) = await turn.end()
    assert words in (output["message"] if output["type"] == "error" else words_of(output))


async def test_a_tool_that_asks_again_without_end_is_given_up(asking: Asking) -> None:
    (output,) = await (await begun(asking, "new_again")).end()
    assert (output["type"], "times in a row" in output["message"]) == ("error", True)
    assert words_in(asking.marks).count("again") == MAX_ROUNDS

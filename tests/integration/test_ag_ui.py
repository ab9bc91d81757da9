"""AG-UI as its own client sees it (`@ag-ui/client` from npm), with the agent of docs/clients.md."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.e2e.sdk import WEB
from tests.e2e.sse import counted
from tests.fakes.outside_work import OutsideToolbox
from tests.integration.running_api import LIMIT, RunningApi, new_id, running_api
from tests.speed import limit

PATH = "/api/chat/ag-ui"
NODE_LIMIT = limit(60)
RECIPE = re.compile(r"^```js ag-ui\.mjs\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, toolbox=OutsideToolbox) as api:
        yield api


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent of docs/clients.md, beside the packages that it imports."""
    folder = tmp_path_factory.mktemp("ag-ui")
    (folder / "node_modules").symlink_to(WEB / "node_modules")
    found = RECIPE.search((ROOT / "docs" / "clients.md").read_text())
    assert found is not None
    file = folder / "ag-ui.mjs"
    file.write_text(found[1])
    return file


@dataclass
class Played:
    """What the agent saw in an act. `failure` is None unless the client refused the events."""

    events: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    failure: str | None
    messages: list[dict[str, Any]]

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        return "".join(message.get("content", "") for message in self.messages if message["role"] == "assistant")


async def play(
    api: RunningApi, recipe: Path, thread: str, headers: dict[str, str], *acts: dict[str, Any]
) -> list[Played]:
    job = {"url": f"http://127.0.0.1:{api.port}{PATH}", "threadId": thread, "headers": headers}
    process = await asyncio.create_subprocess_exec(
        "node", "ag_ui.mjs", cwd=WEB, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    body = json.dumps({**job, "recipe": str(recipe), "acts": acts}).encode()
    out, _ = await asyncio.wait_for(process.communicate(body), NODE_LIMIT)
    return [Played(**result) for result in json.loads(out)]


def run(id: str, text: str, **more: Any) -> dict[str, Any]:
    return {"act": "run", "id": id, "text": text, **more}


async def test_a_run_passes_the_checks_of_the_client_and_a_reload_shows_the_same(api: RunningApi, recipe: Path) -> None:
    mine, thread = api.as_user(), new_id()
    learn = '/tool add_understanding {"user_name":"Ada"}'
    first, second, loaded = await play(
        api, recipe, thread, mine,
        run("m1", f"/think 3\n/stream 5\n{learn}\n/then\n/stream 3"), run("m2", "/say More"), {"act": "connect"},
    )  # fmt: skip
    for played in (first, second, loaded):
        assert played.failure is None
        assert played.kinds[0] == "RUN_STARTED"
        assert played.kinds[-1] == "RUN_FINISHED"
    assert first.events[0]["threadId"] == thread
    assert first.events[0]["runId"] == first.events[-1]["runId"] == "run-m1"
    assert first.events[-1]["outcome"] == {"type": "success"}
    assert first.events[-1]["usage"][0]["outputTokens"] > 0
    assert first.text == counted(5) + counted(3)
    called = ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT"]
    assert [kind for kind in first.kinds if kind.startswith("TOOL_")] == called
    assert {"STEP_STARTED", "STEP_FINISHED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_END"} <= set(first.kinds)
    (result,) = [message for message in first.messages if message["role"] == "tool"]
    assert json.loads(result["content"])["type"] == "understanding_updated"
    assert [message["role"] for message in second.messages].count("user") == 2
    assert loaded.kinds[1] == "MESSAGES_SNAPSHOT"

    def told(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [
            (one["role"], one.get("content") or "", [call["id"] for call in one.get("toolCalls") or ()])
            for one in messages
        ]

    def apart(messages: list[tuple[Any, ...]]) -> set[tuple[str, str]]:
        texts = {(role, content) for role, content, _ in messages if content}
        return texts | {("call", id) for _, _, calls in messages for id in calls}

    assert apart(told(loaded.messages)) == apart(told(second.messages))


async def test_a_run_that_is_cut_goes_on_after_its_last_event(api: RunningApi, recipe: Path) -> None:
    mine, thread = api.as_user(), new_id()
    (played,) = await play(api, recipe, thread, mine, run("m1", "/stream 60 5", cut=3_000))
    assert played.failure is None
    assert [request["method"] for request in played.requests] == ["POST", "POST"]
    assert played.requests[1]["cursor"] is not None
    assert played.text == counted(60)
    assert len((await api.session(thread, mine))["messages"]) == 2


async def test_a_thread_is_followed_while_its_answer_runs(api: RunningApi, recipe: Path) -> None:
    mine = api.as_user()
    thread = await api.new_session(mine)
    words = 400
    saying = asyncio.create_task(api.say(thread, f"/stream {words} 20", mine))
    task = (await api.active_stream(thread, mine))["task_id"]
    (played,) = await play(api, recipe, thread, mine, {"act": "connect"})
    await saying
    assert played.failure is None
    assert played.kinds[:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]
    assert played.kinds.count("RUN_STARTED") == played.kinds.count("RUN_FINISHED") == 1
    assert played.events[0]["runId"] == task
    assert played.messages[0]["role"] == "user"
    assert played.text == counted(words)


async def test_a_failed_run_ends_with_its_error_and_a_cancelled_one_says_so(api: RunningApi, recipe: Path) -> None:
    mine, thread = api.as_user(), new_id()
    (failed,) = await play(api, recipe, thread, mine, run("m1", "/fail"))
    assert failed.kinds[-1] == "RUN_ERROR"
    assert failed.events[-1]["code"] == "provider_error"
    other = new_id()
    playing = asyncio.create_task(play(api, recipe, other, mine, run("m1", "/stream 2000 20")))
    async with asyncio.timeout(LIMIT):
        while (await api.http.get(f"/api/chat/sessions/{other}", headers=mine)).status_code != 200:
            await asyncio.sleep(0.02)
    await api.active_stream(other, mine)
    assert (await api.http.post(f"/api/chat/sessions/{other}/cancel", headers=mine)).json()["cancelled"]
    (cancelled,) = await playing
    assert (cancelled.failure, cancelled.events[-1]["outcome"]) == (None, {"type": "cancelled"})


async def test_a_request_with_a_cursor_starts_no_turn(api: RunningApi) -> None:
    mine, thread = api.as_user(), new_id()
    body = {"threadId": thread, "runId": "r", "messages": [{"id": "m", "role": "user", "content": "/stream 2"}]}
    unknown = await api.http.post(PATH, json=body, headers=mine | {"last-event-id": "1000-1"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "session_not_found")
    answer = await api.http.post(PATH, json=body, headers=mine)
    ids = re.findall(r"^id: (.*)$", answer.text, re.MULTILINE)
    end = await api.http.post(PATH, json=body, headers=mine | {"last-event-id": ids[-1]})
    assert (end.status_code, end.content) == (204, b"")
    rest = await api.http.post(PATH, json=body, headers=mine | {"last-event-id": ids[2]})
    assert (
        rest.text.removeprefix(": stream-open\n\n") == answer.text.partition(f"id: {ids[2]}\n")[2].partition("\n\n")[2]
    )
    expired = await api.http.post(PATH, json=body, headers=mine | {"last-event-id": "1000-1"})
    assert (expired.status_code, expired.json()["code"]) == (410, "cursor_expired")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"resume": [{"interruptId": "x", "status": "resolved"}]}, "unsupported_parameter"),
        ({"messages": []}, "empty_message"),
        ({"messages": [{"id": "a", "role": "assistant", "content": "x"}]}, "empty_message"),
        ({"messages": [{"id": "a", "role": "user", "content": " "}]}, "empty_message"),
        ({"messages": [{"id": "a", "role": "user", "content": [{"type": "image"}]}]}, "unsupported_part"),
        ({"threadId": "short"}, "validation_error"),
        ({"forwardedProps": {"model": "unknown"}}, "unknown_model"),
        ({"forwardedProps": {"model": 7}}, "validation_error"),
    ],
)
async def test_a_run_that_is_not_supported_is_refused(api: RunningApi, changes: dict[str, Any], code: str) -> None:
    message = {"id": "m", "role": "user", "content": "x"}
    body = {"threadId": new_id(), "runId": "r", "state": {}, "messages": [message], "tools": [], "context": []}
    answer = await api.http.post(PATH, json=body | changes, headers=api.as_user())
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_tools_of_the_page_are_ignored(api: RunningApi) -> None:
    body = {"threadId": new_id(), "runId": "r", "messages": [{"id": "m", "role": "user", "content": "/say Hello"}]}
    body["tools"] = [{"name": "paint", "description": "Paints the page.", "parameters": {"type": "object"}}]
    answer = await api.http.post(PATH, json=body, headers=api.as_user())
    assert answer.status_code == 200
    assert "RUN_FINISHED" in answer.text

"""Tests with the AI SDK's own clients (`useChat` without React, of each version) against the running service.

In every test, the checker (tests/web/lib/check.mjs) verifies the wire format, every chunk, their order and the
messages. Every story has its own user, so the default limits apply.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tests.e2e.sdk import VERSIONS, Act, Report, SdkClients, Tab
from tests.e2e.sse import PACE, counted, words_for
from tests.e2e.stack import Stack, bearer, new_session, new_user
from tests.faults.scale import FULL
from tests.pictures import data_url, picture

WORDS = words_for(1.5)

TRIED = VERSIONS if FULL else tuple(version for version in VERSIONS if version != "5.0.277")
"""The other tests of SDK clients try 5.0.277, too. `make faults` tries it here."""
pytestmark = pytest.mark.parametrize("sdk", TRIED)

Play = Callable[..., Awaitable[Report]]
OPEN: Act = {"act": "open", "tab": "a"}
SEARCH = '/tool search_docs {"query":"stream"}'
LEARN = '/tool add_understanding {"user_name":"Ada"}'
CITED = "/source https://example.org/a A page"
MIXED = (
    f"/reason let me think\n{CITED}\n/stream 3 8\n{SEARCH}\n{LEARN}\n/then\n{CITED}\n/source http://b.c/\n/stream 4 8"
)
AT_ONCE = 6


@pytest.fixture
def play(sdk: str, stack: Stack, sdk_clients: SdkClients) -> Play:
    """Plays acts in a new session of a new user, unless these are given. Asserts that the checker finds no fault."""

    async def play(*acts: Act, user: str | None = None, session: str | None = None) -> Report:
        headers = bearer(user or new_user())
        report = await sdk_clients.play(sdk, stack.base, session or new_session(), acts, headers=headers)
        assert report.faults == []
        return report

    return play


def tried_by(sdk: str, places: range) -> list[int]:
    """Returns every other place, so that some version tries each place. `make faults` tries all with every version."""
    return [n for n in places if FULL or (n + TRIED.index(sdk)) % 2 == 0]


def send(text: str, tab: str = "a", **more: Any) -> Act:
    return {"act": "send", "tab": tab, "text": text, **more}


def on(tab: str, act: str, **more: Any) -> Act:
    return {"act": act, "tab": tab, **more}


def shown(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns ids, roles and parts, without the id that newer clients keep of a reasoning part. No history has it."""
    return [{"id": m["id"], "role": m["role"], "parts": [without_stream_id(p) for p in m["parts"]]} for m in messages]


def without_stream_id(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if part["type"] != "reasoning" or key != "id"}


def status_of(tab: Tab) -> Any:
    return tab.last["metadata"]["status"]


async def test_a_plain_answer_is_one_message_with_the_exact_text(play: Play) -> None:
    report = await play(OPEN, send("/stream 40 2"))
    tab = report.tabs["a"]
    assert tab.text == counted(40)
    assert tab.roles == ["user", "assistant"]
    assert tab.statuses == ["submitted", "streaming", "ready"]
    assert status_of(tab) == "completed"
    assert [call["isError"] for call in tab.finished()] == [False]


async def test_special_characters_arrive_as_the_model_wrote_them(play: Play) -> None:
    report = await play(OPEN, send("/say Grüße  aus \u2028 Köln: “data: x” \U0001f642 event: y"))
    assert report.tabs["a"].text == "Grüße  aus \u2028 Köln: “data: x” \U0001f642 event: y"


async def test_parallel_tool_calls_run_on_the_server_and_end_with_their_outputs(play: Play) -> None:
    report = await play(OPEN, send(f"{SEARCH}\n{LEARN}\n/tool get_doc_page {json.dumps({'path': 'no-such-page.md'})}"))
    tab = report.tabs["a"]
    calls = tab.parts("dynamic-tool")
    assert [call["toolName"] for call in calls] == ["search_docs", "add_understanding", "get_doc_page"]
    assert {call["state"] for call in calls} <= {"output-available", "output-error"}
    assert calls[0]["input"] == {"query": "stream"}
    assert calls[0]["output"]["type"] in ("doc_search_results", "no_results")
    assert tab.parts("text")[-1]["text"]
    assert len(tab.legs) == 1


async def test_reasoning_arrives_as_a_part_of_its_own_before_the_text(play: Play) -> None:
    report = await play(OPEN, send("/reason first this, then that\n/stream 5"))
    tab = report.tabs["a"]
    assert [part["text"] for part in tab.parts("reasoning")] == ["first this, then that"]
    assert tab.text == counted(5)
    kinds = [part["type"] for part in tab.last["parts"]]
    assert kinds.index("reasoning") < kinds.index("text")


async def test_sources_arrive_once_each_after_the_text_and_in_their_order(play: Play) -> None:
    tab = (await play(OPEN, send(MIXED))).tabs["a"]
    pages = [(part["url"], part.get("title")) for part in tab.parts("source-url")]
    assert pages == [("https://example.org/a", "A page"), ("http://b.c/", None)]
    assert [part["type"] for part in tab.last["parts"]][-2:] == ["text", "source-url"]


async def test_a_provider_error_is_an_error_with_a_sentence_and_the_next_message_works(play: Play) -> None:
    user, session = new_user(), new_session()
    failed = (await play(OPEN, send("/stream 5\n/fail"), user=user, session=session)).tabs["a"]
    assert failed.status == "error"
    assert failed.error is not None
    assert failed.error.endswith(".")
    assert failed.text == counted(5)
    data_parts = [call["part"] for call in failed.calls if call["call"] == "onData"]
    assert [part["data"]["code"] for part in data_parts if part["type"] == "data-error"] == ["provider_error"]
    again = (await play({**OPEN, "hydrate": True}, send("/stream 3"), user=user, session=session)).tabs["a"]
    assert again.status == "ready"
    assert again.roles == ["user", "assistant", "user", "assistant"]
    assert again.text == counted(3)


async def test_a_cancel_ends_the_message_and_keeps_its_text(play: Play) -> None:
    begun = send("/stream 5000 10", wait=False)
    report = await play(OPEN, begun, on("a", "received", events=12), {"act": "cancel"}, on("a", "settled"))
    tab = report.tabs["a"]
    assert report.results[3]["body"]["cancelled"] is True
    assert status_of(tab) == "cancelled"
    assert tab.text
    assert counted(5000).startswith(tab.text)
    assert "abort" in [chunk["type"] for chunk in tab.chunks()]


async def test_a_cancel_while_the_model_thinks_leaves_nothing_open(play: Play) -> None:
    begun = send("/reason " + "hm " * 500, wait=False)
    report = await play(OPEN, begun, on("a", "received", events=8), {"act": "cancel"}, on("a", "settled"))
    tab = report.tabs["a"]
    assert status_of(tab) == "cancelled"
    assert tab.parts("reasoning")


async def test_a_page_reloaded_in_mid_answer_shows_the_whole_answer_once(play: Play) -> None:
    begun = send(f"/stream {WORDS} {PACE}", wait=False)
    reload = [on("a", "stop"), on("b", "open", hydrate=True), on("b", "resume")]
    report = await play(OPEN, begun, on("a", "received", events=15), *reload)
    before, after = report.tabs["a"], report.tabs["b"]
    assert after.text == counted(WORDS)
    assert after.roles == ["user", "assistant"]
    assert [message["id"] for message in after.messages] == [message["id"] for message in before.messages]
    assert status_of(after) == "completed"
    assert [request["status"] for request in after.requests()] == [200]


async def test_a_page_reloaded_after_any_chunk_shows_the_whole_answer_once(play: Play, sdk: str) -> None:
    """A late reload finds the answer in the history, an early one in the stream. None finds it twice or not at all.

    The page resumes at the task that the history names. The session's stream would answer 204 for a task that has just
    ended.
    """
    whole = (await play(OPEN, send(MIXED))).tabs["a"]
    expected = (whole.text, [part["type"] for part in whole.last["parts"]])
    free = asyncio.Semaphore(AT_ONCE)

    async def with_reload(n: int) -> None:
        again = on("b", "open", hydrate=True, attach="task")
        reload = [on("a", "received", events=n), on("a", "stop"), again, on("b", "resume")]
        async with free:
            tab = (await play(OPEN, send(MIXED, wait=False), *reload)).tabs["b"]
        assert (tab.text, [part["type"] for part in tab.last["parts"]]) == expected, f"reload after {n}"
        assert tab.roles == ["user", "assistant"]

    await asyncio.gather(*(with_reload(n) for n in tried_by(sdk, range(1, len(whole.chunks()) - 6))))


async def test_resuming_when_nothing_runs_is_a_204_and_changes_nothing(play: Play) -> None:
    user, session = new_user(), new_session()
    before = (await play(OPEN, on("a", "resume"), user=user, session=session)).tabs["a"]
    assert [request["status"] for request in before.requests()] == [204]
    assert (before.status, before.messages) == ("ready", [])
    live = (await play(OPEN, send("/stream 5"), user=user, session=session)).tabs["a"]
    after = (await play({**OPEN, "hydrate": True}, on("a", "resume"), user=user, session=session)).tabs["a"]
    assert [request["status"] for request in after.requests()] == [204]
    assert after.status == "ready"
    assert shown(after.messages) == shown(live.messages)


async def test_a_cut_after_any_chunk_is_invisible(play: Play, sdk: str) -> None:
    """The network cuts the answer after its n-th chunk, for every n, and the client reconnects behind it.

    It reconnects to the session's stream and to the task's in turn, so that each is tested for every n.
    """
    whole = (await play(OPEN, send(MIXED))).tabs["a"]
    expected = (whole.text, [part["type"] for part in whole.last["parts"]])
    accept = {"accept": "reset-step"} if sdk.startswith("7.") else {}
    free = asyncio.Semaphore(AT_ONCE)

    async def with_cut(n: int) -> int:
        attach = ("session", "task")[(n + TRIED.index(sdk)) // 2 % 2]
        async with free:
            tab = (await play({**OPEN, "cuts": [n], "attach": attach, **accept}, send(MIXED))).tabs["a"]
        assert (tab.text, [part["type"] for part in tab.last["parts"]]) == expected, f"cut after {n}"
        assert tab.roles == ["user", "assistant"]
        assert status_of(tab) == "completed"
        return len(tab.requests())

    cuts = tried_by(sdk, range(len(whole.chunks()) + 1))
    connections = await asyncio.gather(*(with_cut(n) for n in cuts))
    assert set(connections[: len(cuts) // 2]) == {2}


async def test_a_network_that_cuts_after_every_chunk_changes_nothing(play: Play) -> None:
    tab = (await play({**OPEN, "cuts": [1] * 200}, send(MIXED))).tabs["a"]
    assert tab.text == counted(3) + counted(4)
    assert tab.roles == ["user", "assistant"]
    assert len(tab.requests()) > 10


async def test_a_second_tab_sees_the_same_message_once(play: Play) -> None:
    begun = send(f"{LEARN}\n/stream 5 5\n/then\n/stream {WORDS} {PACE}", wait=False)
    second = [on("b", "open", hydrate=True), on("b", "resume", wait=False)]
    report = await play(OPEN, begun, on("a", "received", events=10), *second, on("a", "settled"), on("b", "settled"))
    first, other = report.tabs["a"], report.tabs["b"]
    assert other.text == counted(5) + counted(WORDS)
    assert shown(other.messages) == shown(first.messages)


async def test_the_history_equals_what_the_client_assembled_from_the_stream(play: Play) -> None:
    user, session = new_user(), new_session()
    story = [OPEN, send("/stream 5"), send(MIXED), send(f"{SEARCH}\n{LEARN}")]
    live = (await play(*story, user=user, session=session)).tabs["a"]
    stored = (await play({**OPEN, "hydrate": True}, user=user, session=session)).tabs["a"]
    assert shown(stored.messages) == shown(live.messages)
    assert [m.get("metadata") for m in stored.messages] == [m.get("metadata") for m in live.messages]


async def test_a_failed_or_cancelled_turn_is_stored_as_the_client_saw_it(play: Play) -> None:
    user, session = new_user(), new_session()
    (await play(OPEN, send(f"/stream 5\n{LEARN}\n/then\n/stream 3\n/fail"), user=user, session=session))
    begun = send(f"/reason so\n{CITED}\n/stream 5000 10", wait=False)
    story = [begun, on("a", "received", events=9), {"act": "cancel"}, on("a", "settled")]
    live = (await play({**OPEN, "hydrate": True}, *story, user=user, session=session)).tabs["a"]
    stored = (await play({**OPEN, "hydrate": True}, user=user, session=session)).tabs["a"]
    assert stored.roles == ["user", "assistant", "user", "assistant"]
    assert shown(stored.messages) == shown(live.messages)
    assert [m["metadata"]["status"] for m in stored.messages[1::2]] == ["failed", "cancelled"]


async def test_a_message_sent_while_another_tab_is_answered_waits_its_turn(play: Play) -> None:
    begun = [send(f"/stream {WORDS} {PACE}", wait=False), on("a", "received", events=8)]
    other = [
        on("b", "open", hydrate=True),
        send("/stream 3", tab="b"),
        on("a", "settled"),
        on("c", "open", hydrate=True),
    ]
    report = await play(OPEN, *begun, *other)
    assert report.tabs["a"].text == counted(WORDS)
    assert report.tabs["b"].text == counted(3)
    texts = ["".join(part.get("text", "") for part in m["parts"]) for m in report.tabs["c"].messages]
    assert texts == [f"/stream {WORDS} {PACE}", counted(WORDS), "/stream 3", counted(3)]


async def test_regenerating_answers_the_same_question_again(play: Play) -> None:
    user, session = new_user(), new_session()
    report = await play(OPEN, send("/stream 5"), on("a", "regenerate"), user=user, session=session)
    tab = report.tabs["a"]
    assert tab.roles == ["user", "assistant"]
    assert tab.text == counted(5)
    ids = [leg["requests"][0]["headers"]["x-resumable-stream-id"] for leg in tab.legs]
    assert ids[0] != ids[1]
    stored = (await play({**OPEN, "hydrate": True}, user=user, session=session)).tabs["a"]
    assert shown(stored.messages) == shown(tab.messages)


async def test_an_edited_message_replaces_all_later_messages(play: Play, sdk: str, stack: Stack) -> None:
    user, session = new_user(), new_session()
    live = (await play(OPEN, send("/stream 5"), send("/stream 6"), user=user, session=session)).tabs["a"]
    edit = send("/stream 7", message_id=live.messages[0]["id"])
    edited = (await play({**OPEN, "hydrate": True}, edit, user=user, session=session)).tabs["a"]
    assert edited.roles == ["user", "assistant"]
    assert edited.text == counted(7)
    stored = (await play({**OPEN, "hydrate": True}, user=user, session=session)).tabs["a"]
    assert shown(stored.messages) == shown(edited.messages)


async def test_files_of_a_message_are_there_after_a_reload_and_after_an_edit(play: Play, stack: Stack) -> None:
    user, session = new_user(), new_session()
    async with stack.client() as http:
        stored = await http.post(
            "/api/chat/files", content=picture(), params={"filename": "p.png"}, headers=bearer(user)
        )
    uploaded = {"type": "file", "mediaType": "image/png", "filename": "p.png", "url": stored.json()["url"]}
    pasted = {"type": "file", "mediaType": "text/plain", "filename": "t.txt", "url": data_url(b"hello", "text/plain")}
    report = await play(OPEN, send("/say one", files=[uploaded, pasted]), user=user, session=session)
    asked = report.tabs["a"].messages[0]
    assert [part["type"] for part in asked["parts"]] == ["file", "file", "text"]
    reloaded = await play(
        *({**OPEN, "hydrate": True}, send("/say two", message_id=asked["id"]), {**OPEN, "tab": "b", "hydrate": True}),
        user=user,
        session=session,
    )
    files = [part for part in reloaded.tabs["b"].messages[0]["parts"] if part["type"] == "file"]
    assert [(file["mediaType"], file["filename"]) for file in files] == [
        ("image/png", "p.png"),
        ("text/plain", "t.txt"),
    ]
    assert all(file["url"].startswith("/api/chat/files/") for file in files)
    assert reloaded.tabs["b"].text == "two"

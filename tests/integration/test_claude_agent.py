"""The Claude Agent SDK as the engine of a model call: its real program, and a fake of Anthropic's server."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from backend.chat.models import NewMessage, Part, Role, TextPart, ToolCallPart, ToolResultPart
from backend.config import Settings
from executor.llm import claude_agent
from executor.llm.events import Finished, ModelEvent, TextDelta, ToolCallStart
from executor.llm.failures import ModelCallError
from executor.llm.history import to_prompt_messages
from executor.llm.model import Model, Prompt, ToolSpec
from executor.llm.providers import open_model
from executor.slots import Slots
from tests import ROOT
from tests.fakes.running import bodies_of, fake_server
from tests.integration.running_api import running_api
from tests.pictures import pdf, picture
from tests.servers.claude_install import HINT, find_or_install
from tests.speed import limit

LIMIT = limit(60)
PICTURE = base64.b64encode(picture(width=600, height=400)).decode()
DOCUMENT = base64.b64encode(pdf("Hello")).decode()
TOOLS = (ToolSpec("look", "Looks", {"type": "object", "properties": {"at": {"type": "string"}}}),)


@pytest.fixture(scope="module")
def packages() -> Iterator[Path]:
    """The folder of the SDK, which can be imported meanwhile."""
    found = find_or_install()
    if found is None:
        pytest.skip(HINT)
    sys.path.append(str(found))
    try:
        yield found
    finally:
        sys.path.remove(str(found))


@pytest.fixture(scope="module")
async def url(packages: Path) -> AsyncIterator[str]:
    async with fake_server("anthropic") as url:
        yield url


@pytest.fixture(scope="module")
async def model(url: str) -> AsyncIterator[Model]:
    async with open_model(settings_of(url)) as model:
        yield model


def settings_of(url: str, **given: Any) -> Settings:
    usual = {"chat_api_key": "sk-of-the-tests", "chat_model": "claude-sonnet-4-5"}
    return Settings(chat_provider="claude_agent", chat_base_url=url, **{**usual, **given})


def user(text: str) -> NewMessage:
    return NewMessage(Role.USER, (TextPart(text),))


async def hear(model: Model, rows: list[NewMessage], system: str = "Be kind.") -> list[ModelEvent]:
    prompt = Prompt(system, to_prompt_messages(rows), TOOLS, 4_000, cache_key=uuid.uuid4().hex)
    async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
        return [event async for event in stream]


def said(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def children() -> set[int]:
    """Returns the processes of Claude Code that this process has started."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getpid() and b"--input-format" in (folder / "cmdline").read_bytes():
                    found.add(int(folder.name))
            except OSError:
                continue
    return found


async def test_an_answer_comes_in_pieces_with_its_tokens(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    events = await hear(model, [user(f"{mark}\n/stream 5 20")])
    assert said(events) == "0 1 2 3 4 "
    assert len([event for event in events if isinstance(event, TextDelta)]) == 5
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.reason == "stop"
    assert (end.usage.input_tokens, end.usage.output_tokens) == (11, 5)
    (body,) = await bodies_of(url, mark)
    assert [tool["name"] for tool in body["tools"]] == ["mcp__copilot__look"]
    assert body["system"][-1]["text"] == "Be kind."
    assert body["max_tokens"] == 4_000
    assert not children()


async def test_the_texts_of_users_arrive_as_they_are(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    text = f"/clear {mark} @/etc/hostname\n!ls\n/say Well"
    events = await hear(model, [user(text), NewMessage(Role.ASSISTANT, (TextPart("Yes."),)), user(f"/context {text}")])
    assert said(events) == "Well"
    (body,) = await bodies_of(url, mark)
    texts = [block["text"] for message in body["messages"] for block in message["content"]]
    assert [text for text in texts if not text.startswith("<system-reminder>")] == [text, "Yes.", f"/context {text}"]


async def test_calls_in_parallel_end_the_step_and_their_results_are_in_the_next_one(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    calls = "\n".join(f'/tool mcp__copilot__look {{"at":"{place}"}}' for place in "abc")
    rows = [user("Hi"), NewMessage(Role.ASSISTANT, (TextPart("Hello."),)), user(f"{mark}\n/say Hm\n{calls}\n/then")]
    events = await hear(model, rows)
    starts = [event for event in events if isinstance(event, ToolCallStart)]
    assert [start.name for start in starts] == ["look"] * 3
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "tool-calls"
    parts: tuple[Part, ...] = (TextPart("Hm"), *(ToolCallPart(one.id, "look", {"at": "x"}) for one in starts))
    results = [ToolResultPart(one.id, "look", f"seen {number}") for number, one in enumerate(starts)]
    rows += [NewMessage(Role.ASSISTANT, parts), *(NewMessage(Role.TOOL, (result,)) for result in results)]
    events = await hear(model, rows)
    assert said(events).startswith("The tools answered seen 0 and seen 1 and seen 2")
    first, second = await bodies_of(url, mark)
    assert [message["role"] for message in second["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert [block["type"] for block in second["messages"][3]["content"]] == ["text"] + ["tool_use"] * 3
    assert second["messages"][3]["content"][1]["name"] == "mcp__copilot__look"
    asked = [block["id"] for block in second["messages"][3]["content"][1:]]
    assert [block["tool_use_id"] for block in second["messages"][4]["content"]] == asked
    assert {tool["name"] for body in (first, second) for tool in body["tools"]} == {"mcp__copilot__look"}
    assert not children()


async def test_a_call_of_an_unknown_tool_or_with_a_wrong_input_asks_the_model_once(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    events = await hear(model, [user(f'{mark}\n/tool Bash {{"command":"true"}}\n/tool mcp__copilot__look {{"at":7}}')])
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["Bash", "look"]
    assert len(await bodies_of(url, mark)) == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [("/status 400", "bad_request"), ("/status 529", "overloaded"), ("/status 403", "authentication")],
)
async def test_failures_have_our_codes_and_are_no_text(url: str, command: str, code: str) -> None:
    async with open_model(settings_of(url)) as model:
        with pytest.raises(ModelCallError) as caught:
            await hear(model, [user(f"{uuid.uuid4().hex}\n{command}")])
    assert caught.value.code == code
    assert "sk-" not in caught.value.said
    assert not children()


async def test_a_wrong_key_is_an_authentication_failure(url: str) -> None:
    async with open_model(settings_of(url, chat_api_key="wrong")) as model:
        with pytest.raises(ModelCallError) as caught:
            await hear(model, [user("Hello")])
    assert caught.value.code == "authentication"


async def test_a_break_in_mid_answer_is_incomplete(model: Model) -> None:
    with pytest.raises(ModelCallError) as caught:
        await hear(model, [user(f"{uuid.uuid4().hex}\n/stream 3 100\n/drop")])
    assert caught.value.code == "provider_incomplete"


async def test_leaving_early_ends_the_process_at_once(model: Model) -> None:
    prompt = Prompt("", to_prompt_messages([user(f"{uuid.uuid4().hex}\n/say One\n/hang")]), TOOLS)
    async with asyncio.timeout(LIMIT):
        async with aclosing(model.stream(prompt)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
            assert len(children()) == 1
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < limit(1)
    assert not children()


async def test_a_cancel_while_it_starts_leaves_no_process(model: Model) -> None:
    task = asyncio.create_task(hear(model, [user("/say One")]))
    async with asyncio.timeout(LIMIT):
        while not children():
            await asyncio.sleep(0.01)  # between two looks of a bounded wait
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children()


async def test_a_killed_program_is_an_incomplete_answer(model: Model) -> None:
    prompt = Prompt("", to_prompt_messages([user(f"{uuid.uuid4().hex}\n/say One\n/hang")]), TOOLS)

    async def hear_until_killed() -> None:
        async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    for pid in children():
                        os.kill(pid, signal.SIGKILL)

    with pytest.raises(ModelCallError) as caught:
        await hear_until_killed()
    assert caught.value.code == "provider_incomplete"


async def test_its_environment_has_nothing_of_the_executor(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_WEBHOOK_SECRET", "a secret of the executor")
    async with open_model(settings_of(url)) as model:
        prompt = Prompt("My system.", to_prompt_messages([user(f"{uuid.uuid4().hex}\n/say One\n/hang")]), TOOLS)
        async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
            (pid,) = children()
            environment = Path(f"/proc/{pid}/environ").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_text()
    assert "a secret of the executor" not in environment
    assert "sk-of-the-tests" in environment
    assert "sk-of-the-tests" not in command
    assert "My system." not in command


async def test_a_conversation_longer_than_one_turn_arrives_in_its_order(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    rows = []
    for number in range(10):
        rows += [user(f"question {number}"), NewMessage(Role.ASSISTANT, (TextPart(f"answer {number}"),))]
    await hear(model, [*rows, user(f"{mark}\n/say Yes")])
    (body,) = await bodies_of(url, mark)
    texts = [message["content"][0]["text"] for message in body["messages"][:-1]]
    assert texts == [f"{kind} {number}" for number in range(10) for kind in ("question", "answer")]


async def test_a_prompt_that_the_program_finds_too_long_is_told_as_such(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    with pytest.raises(ModelCallError) as caught:
        await hear(model, [user(f"{mark} {'z' * 1_000_000}")])
    assert caught.value.code == "context_too_long"
    assert not await bodies_of(url, mark)


async def test_odd_characters_pass(model: Model) -> None:
    events = await hear(model, [user(f'{uuid.uuid4().hex}\n/raw "a\\ud800b\\u2028c"')])
    assert said(events) == "a\ufffdb\u2028c"


@pytest.mark.parametrize("name", ["claude-sonnet-5-5", "claude-opus-5"])
async def test_newer_models_get_the_same_history_and_their_effort(url: str, name: str) -> None:
    mark = uuid.uuid4().hex
    rows = [user("Hi"), NewMessage(Role.ASSISTANT, (TextPart("Hello."),)), user(f"{mark}\n/think Hm\n/say Yes")]
    async with open_model(settings_of(url, chat_model=name)) as model:
        prompt = Prompt("Be kind.", to_prompt_messages(rows), TOOLS, 4_000, effort="low")
        async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
            assert said([event async for event in stream]) == "Yes"
    (body,) = await bodies_of(url, mark)
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "system"]
    assert body["messages"][-1]["content"]
    assert body["output_config"] == {"effort": "low"}


async def test_pictures_and_documents_arrive_whole(model: Model, url: str) -> None:
    mark = uuid.uuid4().hex
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DOCUMENT}}
    (first, last) = (
        {"role": "user", "content": [image, document, {"type": "text", "text": text}]} for text in ("Hi", mark)
    )
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(claude_agent, "anthropic_messages", lambda *_: [first, answer, last])
        await hear(model, [user("Hi")])
    (body,) = await bodies_of(url, mark)
    for message in (body["messages"][0], body["messages"][2]):
        sent = [block["source"] for block in message["content"] if block["type"] in ("image", "document")]
        assert sent == [image["source"], document["source"]]


async def test_calls_wait_for_a_slot_and_not_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_agent, "_slots", lambda most: Slots(most, wait=0.2))
    async with open_model(settings_of(url, claude_engine_turns=1)) as model:
        prompt = Prompt("", to_prompt_messages([user(f"{uuid.uuid4().hex}\n/say One\n/hang")]), TOOLS)
        async with asyncio.timeout(LIMIT), aclosing(model.stream(prompt)) as stream:
            await anext(stream)
            with pytest.raises(ModelCallError) as caught:
                await hear(model, [user("/say Two")])
            assert caught.value.code == "overloaded"
            assert len(children()) == 1
        assert said(await hear(model, [user(f"{uuid.uuid4().hex}\n/say Two")])) == "Two"


async def test_the_program_dies_with_a_killed_executor_and_its_folder_goes_later(
    url: str, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import asyncio, sys\n"
        "from tests.integration.test_claude_agent import *\n"
        "async def main():\n"
        "    async with open_model(settings_of(sys.argv[1])) as model:\n"
        "        prompt = Prompt('', to_prompt_messages([user('/say One\\n/hang')]), TOOLS)\n"
        "        async for event in model.stream(prompt):\n"
        "            if isinstance(event, TextDelta):\n"
        "                print(*children(), flush=True)\n"
        "asyncio.run(main())\n"
    )
    path = os.pathsep.join([str(ROOT), str(packages)])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, url), stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT):
            child = int(await process.stdout.readline())
            assert is_alive(child)
            process.kill()
            await process.wait()
            while is_alive(child):
                await asyncio.sleep(0.01)  # between two looks of a bounded wait
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert len(list(tmp_path.glob("copilot-claude-*"))) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with open_model(settings_of(url)):
        assert not list(tmp_path.glob("copilot-claude-*"))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_turns_with_tools_run_through_it(url: str, postgres_dsn: str, redis_dsn: str) -> None:
    given = {
        "chat_provider": "claude_agent",
        "chat_base_url": url,
        "chat_api_key": "k",
        "chat_model": "claude-sonnet-4-5",
    }
    calls = "\n".join(f'/tool mcp__copilot__search_docs {{"query":"{word}"}}' for word in ("redis", "queue", "model"))
    async with running_api(postgres_dsn, redis_dsn, **given) as api:
        mine = api.as_user()
        session = await api.new_session(mine)
        async with asyncio.timeout(LIMIT):
            first = await api.say(session, f"/say Looking\n{calls}\n/then\n/say Found", mine)
            second = await api.say(session, "/say Again", mine)
        assert (first.text, second.text) == ("LookingFound", "Again")
        rows = (await api.session(session, mine))["messages"]
        assert [row["role"] for row in rows] == [
            "user",
            "assistant",
            "tool",
            "tool",
            "tool",
            "assistant",
            "user",
            "assistant",
        ]
        task = asyncio.create_task(api.say(session, "/say Much\n/hang", mine))
        async with asyncio.timeout(LIMIT):
            while not children():
                await asyncio.sleep(0.02)  # between two looks of a bounded wait
            active = await api.active_stream(session, mine)
            answer = await api.http.post(f"/api/chat/tasks/{active['task_id']}/cancel", headers=mine)
            assert answer.status_code == 200, answer.text
            await task
        assert not children()

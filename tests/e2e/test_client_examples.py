"""Runs the examples of docs/clients.md, exactly as written there, against the running service."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.e2e.agents import begin, create, open_agent_stack
from tests.e2e.chat_api import asked, history_of, open_session, text_in, until_answered
from tests.e2e.resumable import PACKAGE, PAGE, build_package
from tests.e2e.sdk import VERSIONS, WEB
from tests.e2e.sse import PACE, counted, words_for
from tests.e2e.stack import Servers, Stack, bearer, new_session, new_user
from tests.faults.scale import FULL
from tests.servers.generator import API_KEY, GeneratorNode
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.starting import OutputFile, first_line
from tests.speed import limit

EXAMPLE = re.compile(r"^```(\w+) ([\w.-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANSWER = f"/stream {words_for(2)} {PACE}"
TEXT = counted(words_for(2))
WORDS = words_for(4)
"""Words of an answer that must last until Node has started."""
LIMIT = limit(60)
TRIED = VERSIONS if FULL else (VERSIONS[0], VERSIONS[-1])
COMPILER = [
    "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler",
    "--jsx", "react-jsx",
]  # fmt: skip


@pytest.fixture(scope="module")
async def stack(
    servers: Servers, generator: GeneratorNode, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with open_agent_stack(servers, generator, tmp_path_factory.mktemp("stack"), ASK_USER="always") as stack:
        yield stack


@pytest.fixture(scope="module")
async def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, compiled by TypeScript, and the packages that they import."""
    await build_package()
    folder = tmp_path_factory.mktemp("examples")
    modules = folder / "node_modules"
    modules.mkdir()
    for package in (WEB / "node_modules").iterdir():
        (modules / package.name).symlink_to(package)
    (modules / "@copilot-chat").mkdir()
    (modules / "@copilot-chat" / "resumable").symlink_to(PACKAGE)
    (modules / "typescript").symlink_to(PAGE / "node_modules" / "typescript")
    (folder / "package.json").write_text('{"type": "module"}')
    for _, name, code in EXAMPLE.findall((ROOT / "docs" / "clients.md").read_text()):
        (folder / name).write_text(code)
    pages = [str(page) for page in folder.glob("*.tsx")]
    await _run("node", "node_modules/typescript/bin/tsc", *COMPILER, *pages, folder=folder)
    return folder


async def _run(*command: str, folder: Path, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(stdin.encode()), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode() + errors.decode()
    return output.decode()


async def run_example(
    folder: Path, name: str, base: str, headers: Mapping[str, str] | None = None, **job: Any
) -> dict[str, Any]:
    job_line = json.dumps({"file": str(folder / name), "base": base, "headers": headers or {}, **job})
    output = await _run("node", "example.mjs", folder=WEB, stdin=job_line)
    seen: dict[str, Any] = json.loads(output)
    return seen


@asynccontextmanager
async def started_example(
    folder: Path, name: str, base: str, headers: Mapping[str, str] | None = None, **job: Any
) -> AsyncIterator[Awaitable[dict[str, Any]]]:
    """Starts an example and waits until it reads. Yields an awaitable of its result."""
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            "node", "example.mjs", cwd=WEB,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output_file,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        async def rest(output: asyncio.StreamReader) -> dict[str, Any]:
            result = await asyncio.wait_for(output.read(), LIMIT)
            assert result, f"{name} ended without a result:\n{output_file.tail()}"
            seen: dict[str, Any] = json.loads(result)
            return seen

        try:
            full_job = {"file": str(folder / name), "base": base, "headers": headers or {}, **job}
            process.stdin.write(json.dumps(full_job).encode())
            process.stdin.close()
            assert await first_line(process, name, output_file.tail) == "\n"
            reading = asyncio.create_task(rest(process.stdout))
            yield reading
            await reading
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def bad_network(stack: Stack, session: str) -> AsyncIterator[str]:
    """Yields the URL of a proxy that resets all connections for a second once that session's answer has begun."""
    async with FaultProxy("127.0.0.1", stack.apis[0].port) as proxy:

        async def fail() -> None:
            async with stack.client() as client:
                await until_answered(client, session)
            async with proxy.failing(Mode.RESET):
                await asyncio.sleep(1)  # the tested outage lasts this long

        async with asyncio.TaskGroup() as failing:
            failing.create_task(fail())
            yield f"http://127.0.0.1:{proxy.port}"


async def test_the_plain_use_chat_example_shows_the_answer(stack: Stack, examples: Path) -> None:
    seen = await run_example(examples, "chat.js", stack.base, act="page", text=ANSWER)
    assert seen == {"user": [ANSWER], "assistant": [TEXT], "alerts": []}


@pytest.mark.parametrize("reload", [False, True], ids=["stays", "reloads"])
async def test_the_durable_use_chat_example_loses_no_text(stack: Stack, examples: Path, reload: bool) -> None:
    session = new_session()
    async with bad_network(stack, session) as base:
        seen = await run_example(
            examples, "durable-chat.js", base, act="page", session=session, text=ANSWER, reload=reload
        )
    assert seen == {"user": [ANSWER], "assistant": [TEXT], "alerts": []}


async def test_the_example_without_a_library_loses_no_text(stack: Stack, examples: Path) -> None:
    async with stack.client() as client:
        session = await open_session(client)
        async with bad_network(stack, session) as base:
            seen = await run_example(examples, "plain.js", base, act="plain", session=session, text=ANSWER)
        assert seen["text"] == TEXT
        assert [text_in(message) for message in await history_of(client, session)] == [ANSWER, TEXT]


async def test_the_event_source_example_loses_no_text(stack: Stack, examples: Path) -> None:
    async with stack.client() as client, FaultProxy("127.0.0.1", stack.apis[0].port) as proxy:
        session = await open_session(client)
        async with asked(client, session, f"/stream {WORDS} {PACE}") as stream:
            await stream.until(5)
            job = {"act": "event-source", "task": stream.task_id}
        async with started_example(examples, "event-source.js", f"http://127.0.0.1:{proxy.port}", **job) as rest:
            async with proxy.failing(Mode.RESET):
                pass
            assert (await rest)["text"] == counted(WORDS)
    assert proxy.accepted >= 2


async def test_the_python_example_loses_no_text(stack: Stack, examples: Path) -> None:
    session = new_session()
    async with bad_network(stack, session) as base:
        printed = await _run(sys.executable, "ask.py", base, session, ANSWER, folder=examples)
    assert printed == TEXT
    async with stack.client() as client:
        assert [text_in(message) for message in await history_of(client, session)] == [ANSWER, TEXT]


async def test_the_example_of_openais_client_keeps_its_conversation(stack: Stack, examples: Path) -> None:
    key = bearer(new_user())["authorization"].removeprefix("Bearer ")
    printed = await _run(sys.executable, "openai_client.py", stack.base, key, "/say one", "/say two", folder=examples)
    assert printed.splitlines() == ["one", "two"]


async def test_the_feed_example_receives_the_events_of_a_turn(stack: Stack, examples: Path) -> None:
    user = new_user()
    async with (
        stack.client(user) as client,
        started_example(examples, "feed.js", stack.base, bearer(user), act="feed") as rest,
    ):
        session = await open_session(client)
        async with asked(client, session, "/stream 3 1") as stream:
            await stream.rest()
            task = stream.task_id
        events = (await rest)["events"]
    assert events[0] == "snapshot"
    assert ["started", session, task] in events
    assert events[-1] == ["finished", session]


async def test_a_page_shows_a_refusal_as_a_sentence(stack: Stack, examples: Path) -> None:
    seen = await run_example(examples, "chat.js", stack.base, act="page", text="  ")
    assert seen["alerts"] == ["The message has no text."]


@pytest.mark.parametrize(("sdk", "note"), [*((version, False) for version in TRIED), (VERSIONS[0], True)])
async def test_a_second_tab_follows_a_turn_that_another_tab_starts(
    stack: Stack, examples: Path, sdk: str, note: bool
) -> None:
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        async with asked(client, session, "/stream 3 1") as stream:
            await stream.rest()
        job = {"act": "second-tab", "session": session, "sdk": sdk, "wanted": 3 if note else 4}
        async with started_example(examples, "second-tab.js", stack.base, bearer(user), **job) as rest:
            body = {"message": "/stream 40 20", "is_user_message": not note}
            headers = {"x-api-key": API_KEY} if note else {}
            path = f"/api/chat/sessions/{session}/stream"
            async with client.stream("POST", path, json=body, headers=headers) as answer:
                assert answer.status_code == 200
                async for _ in answer.aiter_raw():
                    pass
            shown = (await rest)["messages"]
        history = await history_of(client, session)
    assert [(id, text) for id, _, text in shown] == [(message["id"], text_in(message)) for message in history]
    assert shown[-1][2] == counted(40)


async def test_the_example_of_a_file_stores_it_and_returns_a_part(stack: Stack, examples: Path) -> None:
    part = await run_example(
        examples, "files.js", stack.base, bearer(new_user()), act="upload", filename="ü.md", text="# Hi"
    )
    assert (part["type"], part["mediaType"], part["filename"]) == ("file", "text/markdown", "ü.md")
    refused = await run_example(examples, "files.js", stack.base, bearer(new_user()), act="refused", text="<svg></svg>")
    assert refused["message"].startswith("Files may be PNG")


async def test_the_operation_example_receives_the_result(stack: Stack, examples: Path) -> None:
    user = new_user()
    async with stack.client(user) as client:
        _, started = await begin(client, create("[generator: 202-webhook delay=1]"))
        seen = await run_example(
            examples, "operation.js", stack.base, bearer(user), act="operation", task=started["task_id"]
        )
    (saved,) = seen["results"]
    assert saved["type"] == "agent_saved", saved
    assert seen["text"] != ""


async def test_the_example_of_a_question_answers_it_and_shows_what_follows(stack: Stack, examples: Path) -> None:
    user = new_user()
    async with stack.client(user) as client:
        session = await open_session(client)
        async with asked(client, session, '/tool ask_user {"question": "Which colour?"}') as stream:
            events = await stream.rest()
    (output,) = [e.chunk["output"] for e in events if e.chunk.get("type") == "tool-output-available"]
    seen = await run_example(
        examples, "question.js", stack.base, bearer(user), act="question", output=output, answers=["red", "blue"]
    )
    assert seen["texts"] == [
        "The work of ask_user has ended: The user answered: red.",
        "This has been answered already; the first answer is kept.",
    ]

"""The examples of docs/clients.md, as they stand there, against the running service: the page cannot rot."""

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

from tests.e2e.agents import begin, create, household
from tests.e2e.resumable import PACKAGE, PAGE, build_package
from tests.e2e.sdk import WEB
from tests.e2e.sse import counted, words_for
from tests.e2e.stack import ROOT, Servers, Stack, bearer, new_session, new_user
from tests.e2e.talk import asked, history_of, open_session, text_in, until_answered
from tests.servers.generator import GeneratorNode
from tests.servers.proxy import FaultProxy, Mode
from tests.servers.starting import Words, first_line
from tests.speed import limit

EXAMPLE = re.compile(r"^```(\w+) ([\w.-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANSWER = "/stream 200 10"
TEXT = counted(200)
WORDS = words_for(4)
"""Node has to start meanwhile."""
LIMIT = limit(60)
COMPILER = [
    "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler",
    "--jsx", "react-jsx",
]  # fmt: skip


@pytest.fixture(scope="module")
async def home(
    servers: Servers, generator: GeneratorNode, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with household(servers, generator, tmp_path_factory.mktemp("home")) as stack:
        yield stack


@pytest.fixture(scope="module")
async def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, compiled and found correct by TypeScript, and the packages that they import."""
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


async def _run(*command: str, folder: Path, told: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(told.encode()), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode() + errors.decode()
    return output.decode()


async def run_example(
    folder: Path, name: str, base: str, headers: Mapping[str, str] | None = None, **job: Any
) -> dict[str, Any]:
    told = json.dumps({"file": str(folder / name), "base": base, "headers": headers or {}, **job})
    output = await _run("node", "example.mjs", folder=WEB, told=told)
    seen: dict[str, Any] = json.loads(output)
    return seen


@asynccontextmanager
async def begun_example(
    folder: Path, name: str, base: str, headers: Mapping[str, str] | None = None, **job: Any
) -> AsyncIterator[Awaitable[dict[str, Any]]]:
    """An example that has said that it reads; what is yielded waits for what came of it."""
    with Words() as words:
        process = await asyncio.create_subprocess_exec(
            "node", "example.mjs", cwd=WEB,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=words,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        async def rest(output: asyncio.StreamReader) -> dict[str, Any]:
            said = await asyncio.wait_for(output.read(), LIMIT)
            assert said, f"{name} ended without a word:\n{words.tail()}"
            seen: dict[str, Any] = json.loads(said)
            return seen

        try:
            told = {"file": str(folder / name), "base": base, "headers": headers or {}, **job}
            process.stdin.write(json.dumps(told).encode())
            process.stdin.close()
            assert await first_line(process, name, words.tail) == "\n"
            reading = asyncio.create_task(rest(process.stdout))
            yield reading
            await reading
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def bad_network(stack: Stack, session: str) -> AsyncIterator[str]:
    """A way to the service that resets everything for a second as soon as that session's answer has begun."""
    async with FaultProxy("127.0.0.1", stack.apis[0].port) as proxy:

        async def fail() -> None:
            async with stack.client() as client:
                await until_answered(client, session)
            async with proxy.failing(Mode.RESET):
                await asyncio.sleep(1)  # what is tested: an outage of that length

        async with asyncio.TaskGroup() as failing:
            failing.create_task(fail())
            yield f"http://127.0.0.1:{proxy.port}"


async def test_use_chat_without_options(home: Stack, examples: Path) -> None:
    seen = await run_example(examples, "chat.js", home.base, act="page", text=ANSWER)
    assert seen == {"user": [ANSWER], "assistant": [TEXT], "alerts": []}


@pytest.mark.parametrize("reload", [False, True], ids=["stays", "reloads"])
async def test_use_chat_that_never_loses_a_word(home: Stack, examples: Path, reload: bool) -> None:
    session = new_session()
    async with bad_network(home, session) as base:
        seen = await run_example(
            examples, "durable-chat.js", base, act="page", session=session, text=ANSWER, reload=reload
        )
    assert seen == {"user": [ANSWER], "assistant": [TEXT], "alerts": []}


async def test_a_browser_without_a_library(home: Stack, examples: Path) -> None:
    async with home.client() as client:
        session = await open_session(client)
        async with bad_network(home, session) as base:
            seen = await run_example(examples, "plain.js", base, act="plain", session=session, text=ANSWER)
        assert seen["text"] == TEXT
        assert [text_in(message) for message in await history_of(client, session)] == [ANSWER, TEXT]


async def test_an_event_source(home: Stack, examples: Path) -> None:
    async with home.client() as client, FaultProxy("127.0.0.1", home.apis[0].port) as proxy:
        session = await open_session(client)
        async with asked(client, session, f"/stream {WORDS} 10") as stream:
            await stream.until(5)
            job = {"act": "event-source", "task": stream.task_id}
        async with begun_example(examples, "event-source.js", f"http://127.0.0.1:{proxy.port}", **job) as rest:
            async with proxy.failing(Mode.RESET):
                pass
            assert (await rest)["text"] == counted(WORDS)
    assert proxy.accepted >= 2


async def test_python(home: Stack, examples: Path) -> None:
    session = new_session()
    async with bad_network(home, session) as base:
        printed = await _run(sys.executable, "ask.py", base, session, ANSWER, folder=examples)
    assert printed == TEXT
    async with home.client() as client:
        assert [text_in(message) for message in await history_of(client, session)] == [ANSWER, TEXT]


async def test_the_event_feed(home: Stack, examples: Path) -> None:
    user = new_user()
    async with (
        home.client(user) as client,
        begun_example(examples, "feed.js", home.base, bearer(user), act="feed") as rest,
    ):
        session = await open_session(client)
        async with asked(client, session, "/stream 3 1") as stream:
            await stream.rest()
            task = stream.task_id
        heard = (await rest)["heard"]
    assert heard[0] == "snapshot"
    assert ["started", session, task] in heard
    assert heard[-1] == ["finished", session]


async def test_an_operation(home: Stack, examples: Path) -> None:
    user = new_user()
    async with home.client(user) as client:
        _, told = await begin(client, create("[generator: 202-webhook delay=1]"))
        seen = await run_example(
            examples, "operation.js", home.base, bearer(user), act="operation", task=told["task_id"]
        )
    (saved,) = seen["results"]
    assert saved["type"] == "agent_saved", saved
    assert seen["text"] != ""

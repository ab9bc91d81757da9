"""I2, I7: an executor is killed with SIGKILL in the middle of a step that the Claude Agent SDK makes. Stream and rows
are exact, the tool has run once, and no process of the killed executor is left."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from tests import ROOT
from tests.e2e.chat_api import ending_of, history_of, open_session, task_of, text_in
from tests.e2e.sse import counted, open_stream, text_of
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.fakes.running import bodies_of, fake_server
from tests.faults.figures import record
from tests.faults.owners import kill_owner, postgres_connection
from tests.faults.scale import scale
from tests.servers.claude_install import HINT, find_or_install
from tests.speed import limit

KILLS = scale(1, 10)
WORDS = 150
pytestmark = pytest.mark.timeout(scale(180, 1_800))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with fake_server("anthropic") as url:
        yield url


@pytest.fixture
async def pair(servers: Servers, tmp_path: Path, url: str) -> AsyncIterator[Stack]:
    packages = await asyncio.to_thread(find_or_install)
    if packages is None:
        pytest.skip(HINT)
    model = {
        "CHAT_PROVIDER": "claude_agent",
        "CHAT_BASE_URL": url,
        "CHAT_API_KEY": "k",
        "CHAT_MODEL": "claude-sonnet-4-5",
    }
    own = {"PYTHONPATH": f"{ROOT}:{packages}", "TMPDIR": str(tmp_path)}
    async with open_stack(servers, tmp_path, executors=2, **model, **own) as stack:
        yield stack


def programs_in(folder: Path) -> list[int]:
    """Returns the processes that work in a folder of `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str((entry / "cwd").resolve()).startswith(f"{folder}/copilot-claude-"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def test_a_step_is_exact_although_its_executor_is_killed(
    pair: Stack, url: str, chance: Random, tmp_path: Path
) -> None:
    script = f'/tool mcp__copilot__search_docs {{"query":"redis"}}\n/then\n/stream {WORDS} 10'
    async with pair.client(new_user()) as client, postgres_connection(pair.servers.postgres) as c:
        for _ in range(KILLS):
            mark = uuid.uuid4().hex
            session = await open_session(client)
            path = f"/api/chat/sessions/{session}/stream?accept=reset-step"
            message = {"message": f"{mark}\n{script}"}
            async with open_stream(client, "POST", path, json=message) as stream, asyncio.timeout(limit(90)):
                await stream.until(chance.randrange(12, 60))
                assert await kill_owner(pair, c, stream.task_id)
                await stream.rest()
            await pair.start_executor()
            assert ending_of(stream.events) == "completed"
            assert text_of(stream.events) == counted(WORDS)
            row = await task_of(client, stream.task_id)
            assert (row["attempt"], row["status"]) == (2, "completed")
            asked, answered = await history_of(client, session)
            assert (asked["role"], answered["role"]) == ("user", "assistant")
            assert text_in(answered) == counted(WORDS)
            assert sum("toolCallId" in part for part in answered["parts"]) == 1
            bodies = await bodies_of(url, mark)
            results = [block for block in bodies[-1]["messages"][-1]["content"] if block["type"] == "tool_result"]
            assert len(results) == 1
            async with asyncio.timeout(limit(10)):
                while programs_in(tmp_path):
                    await asyncio.sleep(0.05)  # between two looks of a bounded wait
    record("I2", f"{KILLS} x kill -9 of an executor in a step of the Claude Agent SDK: stream and rows exact")

"""I2: an executor is killed with SIGKILL in the middle of a model call that does not go straight: a retry after a
refusal, a prompt that is cut after an overflow, reasoning in tags, an answer that is one JSON document. Stream and rows
are exact."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.e2e.chat_api import ending_of, history_of, open_session, read_with_cuts, task_of, text_in
from tests.e2e.sse import SseStream, counted, open_stream, text_of
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.fakes.running import bodies_of, fake_server
from tests.faults.figures import record
from tests.faults.owners import kill_owner, postgres_connection
from tests.faults.scale import scale
from tests.speed import limit

KILLS = scale(1, 25)
WORDS, THOUGHTS = 150, 30
ANSWER = "The whole answer at once."
DOCUMENT = json.dumps({"choices": [{"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}]})
STREAM = f"/stream {WORDS} 10"
pytestmark = pytest.mark.timeout(scale(180, 3_600))


@dataclass(frozen=True)
class Case:
    """A fake of `tests/fakes/picky_server.py`, what it is asked, and what the answer is.

    The executor is killed when a number of events below `last_place` have come.
    """

    server: str
    asked: str
    text: str
    reasoning: str = ""
    last_place: int = 60
    provider: str = "openai"


CASES = {
    "a retry after a refusal": Case("plain", f"/slow 0.3\n{STREAM}", counted(WORDS)),
    "a prompt that was cut": Case("roomy", f"/slow 0.3\n{STREAM}\n{'word ' * 12_000}", counted(WORDS)),
    "reasoning in tags": Case(
        "plain",
        "\n".join(['/raw "<think>"', f"/count T {THOUGHTS} 10", '/raw "</think>\\n\\n"', STREAM]),
        counted(WORDS),
        "".join(f"T:{number};" for number in range(THOUGHTS)),
    ),
    "the Responses API": Case(
        "responses",
        f"/think So be it\n{STREAM}",
        counted(WORDS),
        "So be it",
        provider="openai-responses",
    ),
    "one JSON document": Case(
        "plain", f"/slow 1\n/body 200 0 application/json {json.dumps(DOCUMENT)}", ANSWER, last_place=3
    ),
}


@pytest.fixture(scope="module")
async def models() -> AsyncIterator[str]:
    async with fake_server("picky") as url:
        yield url


@pytest.fixture(params=CASES)
async def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
async def pair(servers: Servers, tmp_path: Path, models: str, case: Case) -> AsyncIterator[Stack]:
    model = {"CHAT_PROVIDER": case.provider, "CHAT_BASE_URL": f"{models}/{case.server}/v1", "CHAT_MODEL": "m"}
    async with open_stack(servers, tmp_path, executors=2, **model) as stack:
        yield stack


async def test_an_answer_is_exact_although_its_executor_is_killed_in_the_middle_of_the_call(
    pair: Stack, case: Case, models: str, chance: Random, request: pytest.FixtureRequest
) -> None:
    async with pair.client(new_user()) as client, postgres_connection(pair.servers.postgres) as c:
        for _ in range(KILLS):
            mark = uuid.uuid4().hex
            session = await open_session(client)
            path = f"/api/chat/sessions/{session}/stream?accept=reset-step"
            message = {"message": f"{mark}\n{case.asked}"}
            async with open_stream(client, "POST", path, json=message) as stream, asyncio.timeout(limit(90)):
                await stream.until(chance.randrange(1, case.last_place))
                assert await kill_owner(pair, c, stream.task_id)
                await stream.rest()
            await pair.start_executor()
            await check_answer(client, session, stream, case)
            bodies = await bodies_of(models, mark)
            sizes = [len(json.dumps(body)) for body in bodies]
            if case.server == "plain":
                assert "stream_options" not in bodies[-1]
            elif case.server == "roomy":
                assert sizes[-1] < sizes[0]
    record("I2", f"{KILLS} x kill -9 of an executor in the middle of {request.node.callspec.id}: stream and rows exact")


async def check_answer(client: httpx.AsyncClient, session: str, stream: SseStream, case: Case) -> None:
    assert ending_of(stream.events) == "completed"
    assert text_of(stream.events) == case.text
    row = await task_of(client, stream.task_id)
    assert (row["attempt"], row["status"]) == (2, "completed")
    late = await read_with_cuts(client, stream.task_id, [3, 5])
    assert text_of(late) == case.text
    asked, answered = await history_of(client, session)
    assert (asked["role"], answered["role"]) == ("user", "assistant")
    assert text_in(answered) == case.text
    thoughts = [part["text"] for part in answered["parts"] if part["type"] == "reasoning"]
    assert thoughts == ([case.reasoning] if case.reasoning else [])

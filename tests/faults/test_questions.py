"""I35: each answer of a user is applied once, an approved call runs once, the model goes on once, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.chat_api import asked, open_session
from tests.e2e.stack import Servers, Stack, new_user, open_stack, ready
from tests.faults import marking_executor
from tests.faults.figures import record
from tests.faults.owners import postgres_connection
from tests.faults.scale import scale
from tests.faults.test_completions import WITHIN, Api, killing, until_all_completed
from tests.servers.ports import free_port
from tests.speed import limit

SESSIONS, PER_SESSION, AT_ONCE = scale(3, 125), 5, 8
CANCELLED = 4
"""The number of the question in each session that the user cancels."""
TABS = 3
KILL_EVERY = 1.5
LIMITS = dict.fromkeys(("MAX_RUNNING_TURNS", "MAX_WAITING_TURNS", "MAX_QUESTIONS", "MAX_CRASHES"), "1000")
pytestmark = pytest.mark.timeout(scale(180, 3000))


async def test_each_answer_is_applied_once_while_every_process_dies(
    servers: Servers, tmp_path: Path, chance: random.Random
) -> None:
    marks = tmp_path / "marks"
    marks.touch()
    settings = {**LIMITS, "ASK_USER": "always", "TOOL_APPROVAL": "mark=ask", "MARKS": str(marks)}
    async with open_stack(servers, tmp_path, executors=0, apis=0, **settings) as stack:
        apis = [Api(stack, free_port()) for _ in range(2)]
        await asyncio.gather(*(api.start() for api in apis))
        for _ in range(2):
            await ready(await stack.spawn("executor", program=marking_executor.PROGRAM))
        async with stack.client(new_user()) as client:
            waits = [one for n in range(SESSIONS) for one in await ask_several(client, n)]
            assert len(waits) == SESSIONS * PER_SESSION
            assert marks.read_text() == "", "no call has run before it was approved"
            at_once = asyncio.Semaphore(AT_ONCE)
            statuses: Counter[int] = Counter()

            async def answer(wait: dict[str, Any]) -> None:
                """Answers from several tabs at once, which do not agree."""
                async with at_once:
                    bodies = [body_for(wait, chance) for _ in range(TABS)]
                    urls = [f"http://127.0.0.1:{chance.choice(apis).port}{path_for(wait)}" for _ in bodies]
                    pairs = zip(urls, bodies, strict=True)
                    statuses.update(await asyncio.gather(*(accepted(client, url, body) for url, body in pairs)))

            async with killing(apis, chance, every=KILL_EVERY), killing_executors(stack, chance) as killed:
                half = len(waits) // 2
                await asyncio.gather(*(answer(wait) for wait in waits[:half]))
                async with asyncio.timeout(WITHIN):
                    while not (killed and any(api.kills for api in apis)):
                        await asyncio.sleep(0.05)
                await asyncio.gather(*(answer(wait) for wait in waits[half:]))
                await asyncio.sleep(scale(KILL_EVERY, 0))
            await until_all_completed(servers, [wait["task_id"] for wait in waits if not wait["cancelled"]])
            await until_all_ended(servers)
        assert set(statuses) <= {200, 409}, statuses
        unknown = await check_rows(servers, waits, Counter(marks.read_text().split()))
        kills = sum(api.kills for api in apis)
        assert kills
        assert killed
        record(
            "I35",
            f"{len(waits)} questions x {TABS} answers, {kills} kills of API and {len(killed)} of executor: "
            f"each applied once; {dict(statuses)}; {unknown} approved calls cut off by a kill",
        )


async def ask_several(client: httpx.AsyncClient, number: int) -> list[dict[str, Any]]:
    """Runs a turn that asks three questions and for two approvals. Returns the outputs of its calls, with the texts."""
    session = await open_session(client)
    texts = [f"{number}-{n}" for n in range(PER_SESSION)]
    calls = [
        f"/tool {'mark' if n % 2 else 'ask_user'} {json.dumps({'text' if n % 2 else 'question': text})}"
        for n, text in enumerate(texts)
    ]
    async with asked(client, session, "\n".join(calls)) as stream:
        await stream.rest()
    by_call = {e.chunk["toolCallId"]: e.chunk for e in stream.events if e.chunk["type"] == "tool-output-available"}
    order = [e.chunk["toolCallId"] for e in stream.events if e.chunk["type"] == "tool-input-available"]
    return [
        {**by_call[call]["output"], "call": call, "text": text, "session": session, "cancelled": n == CANCELLED}
        for n, (call, text) in enumerate(zip(order, texts, strict=True))
    ]


def path_for(wait: dict[str, Any]) -> str:
    if wait["cancelled"]:
        return f"/api/chat/tasks/{wait['task_id']}/cancel"
    return f"/api/chat/operations/{wait['operation_id']}/answer"


def body_for(wait: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    if wait["asks"] == "approval":
        return {"approved": chance.random() < 0.7}
    return {"answer": chance.choice(["red", "green", "blue"])}


async def accepted(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> int:
    """Answers or cancels as a page does, again and again until the server takes or refuses it. Returns the status."""
    deadline, last = time.monotonic() + limit(60), "nothing"
    while time.monotonic() < deadline:
        try:
            reply = await client.post(url, json=body)
        except httpx.TransportError as error:
            last = repr(error)
        else:
            last = reply.text
            if reply.status_code < 500:
                return reply.status_code
        await asyncio.sleep(0.05)
    pytest.fail(f"not accepted in time; the last answer is {last}")


@asynccontextmanager
async def killing_executors(stack: Stack, chance: random.Random) -> AsyncIterator[list[str]]:
    """Kills executors in turn while the block runs, each after the one before was replaced. Yields the names of those
    killed."""
    killed: list[str] = []

    async def kill() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * KILL_EVERY)
            child = chance.choice(stack.executors)
            child.send(signal.SIGKILL)
            killed.append(child.name)
            await child.ended()
            await ready(await stack.spawn("executor", program=marking_executor.PROGRAM))

    job = asyncio.create_task(kill())
    try:
        yield killed
    finally:
        job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await job


async def until_all_ended(servers: Servers) -> None:
    async with postgres_connection(servers.postgres) as c, asyncio.timeout(WITHIN):
        while await c.fetchval("SELECT count(*) FROM tasks WHERE status IN ('queued', 'running')"):
            await asyncio.sleep(0.2)


async def check_rows(servers: Servers, waits: list[dict[str, Any]], marks: Counter[str]) -> int:
    """Asserts that each wait has one outcome, one continuation and a fitting effect. Returns how many are unknown."""
    unknown = 0
    async with postgres_connection(servers.postgres) as c:
        for wait in waits:
            notes = "SELECT count(*) FROM messages WHERE task_id = $1 AND role = 'user'"
            assert await c.fetchval(notes, wait["task_id"]) == (0 if wait["cancelled"] else 1), "one continuation"
            result = json.loads(await c.fetchval("SELECT result FROM tasks WHERE id = $1", wait["task_id"]))
            stored = await c.fetch(
                "SELECT parts->0->'output' AS output FROM messages WHERE session_id = $1 AND role = 'tool'"
                " AND parts->0->>'tool_call_id' = $2",
                wait["session"],
                wait["call"],
            )
            assert [json.loads(row["output"]) for row in stored] == [result], "the result is in its place"
            if wait["cancelled"]:
                assert result["error"] == "cancelled"
            elif wait["asks"] == "question":
                assert result["answer"] in ("red", "green", "blue")
            elif result.get("error") == "interrupted_unknown_effect":
                unknown += 1
                assert marks[wait["text"]] <= 1
            else:
                assert marks[wait["text"]] == (0 if result.get("error") == "denied" else 1), result
        for session in {wait["session"] for wait in waits}:
            spoken = "SELECT count(*) FROM messages WHERE session_id = $1 AND role = 'assistant' AND step > 0"
            assert await c.fetchval(f"{spoken} AND parts->0->>'type' = 'text'", session) == 1, "the model spoke once"
    return unknown

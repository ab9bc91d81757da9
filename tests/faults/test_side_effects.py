"""I7: a tool with a side effect runs at most once, whichever process dies, and the model learns that a result is
unknown."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.chat_api import asked, ending_of, open_session
from tests.e2e.sse import text_of, types_of
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack, ready
from tests.fakes.running import words_in
from tests.faults.figures import record
from tests.faults.marking_executor import PROGRAM
from tests.faults.owners import owner_of, postgres_connection, writes_no_more
from tests.faults.scale import scale
from tests.speed import limit

KILLS, AT_ONCE = scale(2, 200), scale(2, 8)
UNKNOWN = "interrupted_unknown_effect"


class Effects(NamedTuple):
    """The effects of the two calls of a step: how many left a mark, and how many results the model got as unknown."""

    marks: int
    unknown: int


KILLED_AT = {"after_tool_effect": Effects(1, 2), "after_tool_start": Effects(0, 2)}


async def marking(stack: Stack, marks: Path, failpoints: str = "", **settings: str) -> Child:
    child = await stack.spawn("executor", program=PROGRAM, MARKS=str(marks), FAILPOINTS=failpoints, **settings)
    await ready(child)
    return child


def marks_in(file: Path) -> Counter[str]:
    return Counter(words_in(file))


async def results_of(client: httpx.AsyncClient, session: str) -> list[dict[str, Any]]:
    """Returns the results of the session's calls that the model got."""
    rows = (await client.get(f"/api/chat/sessions/{session}")).json()["messages"]
    return [part["output"] for row in rows if row["role"] == "tool" for part in row["parts"]]


async def effects_of(client: httpx.AsyncClient, marks: Path, name: str) -> Effects:
    """Runs a turn with two parallel calls and returns their effects."""
    session = await open_session(client)
    calls = "\n".join(f'/tool mark {{"text":"{name}-{n}"}}' for n in (1, 2))
    async with asked(client, session, f"/say before\n{calls}\n/then\n/say after") as stream:
        await asyncio.wait_for(stream.rest(), limit(60))
    assert ending_of(stream.events) == "completed"
    assert types_of(stream.events).count("finish") == 1
    assert text_of(stream.events) == "beforeafter"
    errors = [result.get("error") for result in await results_of(client, session)]
    assert len(errors) == 2
    assert set(errors) <= {None, UNKNOWN}
    left = [marks_in(marks)[f"{name}-{n}"] for n in (1, 2)]
    assert all(mark == 1 or error == UNKNOWN for mark, error in zip(left, errors, strict=True)), (left, errors)
    return Effects(sum(left), errors.count(UNKNOWN))


@pytest.mark.timeout(scale(120, 3000))
@pytest.mark.parametrize("at", KILLED_AT)
async def test_a_tool_whose_executor_dies_is_not_run_again(servers: Servers, tmp_path: Path, at: str) -> None:
    """The executor is killed between the effect and its result, or between the stored call and the effect."""
    marks, came = tmp_path / "marks", Counter[Effects]()
    async with open_stack(servers, tmp_path, executors=0, MAX_RUNNING_TURNS="100", MAX_OPEN_STREAMS="100") as stack:
        await marking(stack, marks)  # one that survives, and continues the turns of the others
        async with stack.client(new_user()) as client:
            while came[KILLED_AT[at]] < KILLS:
                killed = came[KILLED_AT[at]]
                # one turn each, so that it is known which turn dies with an executor
                executors = await asyncio.gather(
                    *(marking(stack, marks, f"{at}=1:kill", EXECUTOR_CONCURRENCY="1") for _ in range(AT_ONCE))
                )
                while any(executor.running for executor in executors):
                    names = [f"{at}-{came.total() + n}" for n in range(AT_ONCE)]
                    came.update(await asyncio.gather(*(effects_of(client, marks, name) for name in names)))
                assert came[KILLED_AT[at]] - killed >= AT_ONCE
    assert max(marks_in(marks).values()) == 1
    record(
        "I7",
        f"{KILLS} kills at {at}, {came.total()} turns of two calls: {marks_in(marks).total()} marks, none twice; the "
        "model was told of each call without a result",
    )


@pytest.mark.timeout(scale(120, 600))
async def test_a_frozen_executor_that_wakes_does_not_start_its_next_tool(servers: Servers, tmp_path: Path) -> None:
    """The executor is frozen between the stored call and the effect, another one takes over, and the first one
    wakes."""
    marks, cycles = tmp_path / "marks", scale(2, 20)
    async with open_stack(servers, tmp_path, executors=0) as stack, postgres_connection(servers.postgres) as c:
        await marking(stack, marks)
        async with stack.client(new_user()) as client:
            for n in range(cycles):
                frozen = await marking(stack, marks, "after_tool_start=1:stop")
                while "at=after_tool_start" not in frozen.log.read_text():
                    session = await open_session(client)
                    async with asked(client, session, f'/tool mark {{"text":"n{n}"}}\n/then\n/say after') as stream:
                        reading = asyncio.create_task(stream.rest())
                        await asyncio.wait_for(reading, limit(60))
                assert [result["error"] for result in await results_of(client, session)] == [UNKNOWN]
                before = marks_in(marks)
                frozen.send(signal.SIGCONT)
                async with asyncio.timeout(limit(20)):
                    await writes_no_more(frozen, stream.task_id)
                assert marks_in(marks) == before
                assert await owner_of(c, stream.task_id) is None
                frozen.send(signal.SIGKILL)
                await frozen.ended()
    record("I4", f"{cycles} executors frozen before a tool, taken over and woken: no tool started by any")

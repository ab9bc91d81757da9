"""I7: a tool with a side effect runs once at most, whoever dies around it, and the model is told when nobody knows."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.sse import text_of, types_of
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack, ready
from tests.e2e.talk import asked, ending_of, open_session
from tests.faults.figures import record
from tests.faults.marking_executor import PROGRAM
from tests.faults.owners import looking_into, owner_of, writes_no_more
from tests.faults.scale import scale
from tests.speed import limit

KILLS, AT_ONCE = scale(2, 200), scale(2, 8)
UNKNOWN = "interrupted_unknown_effect"


class Came(NamedTuple):
    """Of the two calls of a step: how many left a mark, and of how many the model was told that nobody knows."""

    marks: int
    unknown: int


KILLED_AT = {"after_tool_effect": Came(1, 2), "after_tool_start": Came(0, 2)}


async def marking(stack: Stack, marks: Path, failpoints: str = "", **settings: str) -> Child:
    child = await stack.spawn("executor", program=PROGRAM, MARKS=str(marks), FAILPOINTS=failpoints, **settings)
    await ready(child)
    return child


def marks_in(file: Path) -> Counter[str]:
    return Counter(file.read_text().split()) if file.exists() else Counter()


async def results_of(client: httpx.AsyncClient, session: str) -> list[dict[str, Any]]:
    """What the model was told of its calls."""
    rows = (await client.get(f"/api/chat/sessions/{session}")).json()["messages"]
    return [part["output"] for row in rows if row["role"] == "tool" for part in row["parts"]]


async def come_of(client: httpx.AsyncClient, marks: Path, name: str) -> Came:
    """Asks for two calls side by side, and lets the turn end."""
    session = await open_session(client)
    calls = "\n".join(f'/tool mark {{"text":"{name}-{n}"}}' for n in (1, 2))
    async with asked(client, session, f"/say before\n{calls}\n/then\n/say after") as stream:
        await asyncio.wait_for(stream.rest(), limit(60))
    assert ending_of(stream.events) == "completed"
    assert types_of(stream.events).count("finish") == 1
    assert text_of(stream.events) == "beforeafter"
    told = [result.get("error") for result in await results_of(client, session)]
    assert len(told) == 2
    assert set(told) <= {None, UNKNOWN}
    left = [marks_in(marks)[f"{name}-{n}"] for n in (1, 2)]
    assert all(mark == 1 or error == UNKNOWN for mark, error in zip(left, told, strict=True)), (left, told)
    return Came(sum(left), told.count(UNKNOWN))


@pytest.mark.timeout(scale(120, 3000))
@pytest.mark.parametrize("at", KILLED_AT)
async def test_a_tool_whose_executor_dies_beside_it_is_not_run_again(servers: Servers, tmp_path: Path, at: str) -> None:
    """Killed between the effect and its result; killed between the stored call and the effect."""
    marks, came = tmp_path / "marks", Counter[Came]()
    async with open_stack(servers, tmp_path, executors=0, MAX_RUNNING_TURNS="100", MAX_OPEN_STREAMS="100") as stack:
        await marking(stack, marks)  # one that lives, and goes on with what the others leave
        async with stack.client(new_user()) as client:
            while came[KILLED_AT[at]] < KILLS:
                killed = came[KILLED_AT[at]]
                # one turn each: whom one takes with it when it dies is known
                mortals = await asyncio.gather(
                    *(marking(stack, marks, f"{at}=1:kill", EXECUTOR_CONCURRENCY="1") for _ in range(AT_ONCE))
                )
                while any(mortal.running for mortal in mortals):
                    names = [f"{at}-{came.total() + n}" for n in range(AT_ONCE)]
                    came.update(await asyncio.gather(*(come_of(client, marks, name) for name in names)))
                assert came[KILLED_AT[at]] - killed >= AT_ONCE
    assert max(marks_in(marks).values()) == 1
    record(
        "I7",
        f"{KILLS} kills at {at}, {came.total()} turns of two calls: {marks_in(marks).total()} marks, none twice; the "
        "model was told of each call without a result",
    )


@pytest.mark.timeout(scale(120, 600))
async def test_a_tool_that_an_executor_was_about_to_start_does_not_start_when_it_wakes(
    servers: Servers, tmp_path: Path
) -> None:
    """Frozen between the stored call and the effect, taken over, woken."""
    marks, cycles = tmp_path / "marks", scale(2, 20)
    async with open_stack(servers, tmp_path, executors=0) as stack, looking_into(servers.postgres) as c:
        await marking(stack, marks)
        async with stack.client(new_user()) as client:
            for n in range(cycles):
                sleeper = await marking(stack, marks, "after_tool_start=1:stop")
                while "at=after_tool_start" not in sleeper.log.read_text():
                    session = await open_session(client)
                    async with asked(client, session, f'/tool mark {{"text":"n{n}"}}\n/then\n/say after') as stream:
                        reading = asyncio.create_task(stream.rest())
                        await asyncio.wait_for(reading, limit(60))
                assert [result["error"] for result in await results_of(client, session)] == [UNKNOWN]
                before = marks_in(marks)
                sleeper.send(signal.SIGCONT)
                async with asyncio.timeout(limit(20)):
                    await writes_no_more(sleeper, stream.task_id)
                assert marks_in(marks) == before
                assert await owner_of(c, stream.task_id) is None
                sleeper.send(signal.SIGKILL)
                await sleeper.ended()
    record("I4", f"{cycles} executors frozen before a tool, taken over and woken: no tool started by any")

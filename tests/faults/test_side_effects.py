"""I7: a tool with a side effect runs once at most, whoever dies around it, and the model is told when nobody knows."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.e2e.sse import types_of
from tests.e2e.stack import Child, Servers, Stack, new_user, open_stack, ready
from tests.e2e.talk import asked, ending_of, open_session
from tests.faults.figures import record
from tests.faults.marking_executor import PROGRAM
from tests.faults.owners import looking_into, owner_of
from tests.faults.scale import scale

KILLS, AT_ONCE = scale(2, 200), scale(2, 4)
UNKNOWN = "interrupted_unknown_effect"


async def marking(stack: Stack, marks: Path, failpoints: str = "") -> Child:
    child = await stack.spawn("executor", program=PROGRAM, MARKS=str(marks), FAILPOINTS=failpoints)
    await ready(child)
    return child


def marks_in(file: Path) -> Counter[str]:
    return Counter(file.read_text().split()) if file.exists() else Counter()


async def results_of(client: httpx.AsyncClient, session: str) -> str:
    """The session's messages as text: what the model was told stands in it."""
    return (await client.get(f"/api/chat/sessions/{session}")).text


@pytest.mark.timeout(scale(120, 3000))
@pytest.mark.parametrize("at", ["after_tool_effect", "after_tool_start"])
async def test_a_tool_whose_executor_dies_beside_it_is_not_run_again(servers: Servers, tmp_path: Path, at: str) -> None:
    """Killed between the effect and its result; killed between the stored call and the effect."""
    marks, done = tmp_path / "marks", 0
    async with open_stack(servers, tmp_path, executors=0, MAX_RUNNING_TURNS="100", MAX_OPEN_STREAMS="100") as stack:
        await marking(stack, marks)  # one that lives, and goes on with what the others leave

        async def one(client: httpx.AsyncClient, name: str) -> bool:
            session = await open_session(client)
            question = f'/say before\n/tool mark {{"text":"{name}"}}\n/then\n/say after'
            async with asked(client, session, question) as stream:
                await asyncio.wait_for(stream.rest(), 60)
            told = UNKNOWN in await results_of(client, session)
            assert ending_of(stream.events) == "completed"
            assert types_of(stream.events).count("finish") == 1
            assert marks_in(marks)[name] == 1 or told  # told: of a neighbour of the one that was killed, maybe not
            return told

        async with stack.client(new_user()) as client:
            while done < KILLS:
                mortals = await asyncio.gather(*(marking(stack, marks, f"{at}=1:kill") for _ in range(AT_ONCE)))
                told: list[bool] = []
                while any(mortal.running for mortal in mortals):
                    names = [f"{at}-{done}-{len(told) + n}" for n in range(AT_ONCE)]
                    told += await asyncio.gather(*(one(client, name) for name in names))
                assert sum(told) >= AT_ONCE
                done += AT_ONCE
    assert max(marks_in(marks).values()) == 1
    record("I7", f"{done} kills at {at}: {marks_in(marks).total()} marks, none twice; the model was told each time")


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
                        await asyncio.wait_for(reading, 60)
                assert UNKNOWN in await results_of(client, session)
                before = marks_in(marks)
                sleeper.send(signal.SIGCONT)
                async with asyncio.timeout(10):
                    while "turn is another executor's by now" not in sleeper.log.read_text():
                        await asyncio.sleep(0.05)
                assert marks_in(marks) == before
                assert await owner_of(c, stream.task_id) is None
                sleeper.send(signal.SIGKILL)
                await sleeper.ended()
    record("I4", f"{cycles} executors frozen before a tool, taken over and woken: no tool started by any")

"""Names of tools that are unique over all servers, and slots for calls that sessions share fairly."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from executor.mcp.call_slots import RESERVED, CallSlots
from executor.mcp.failures import ServerBusy
from executor.mcp.names import MAX_NAME_CHARS, Names
from executor.tools.context import ToolContext
from tests.speed import limit
from tests.unit.test_mcp_tools import CONTEXT


def test_no_two_tools_of_any_servers_have_one_name() -> None:
    servers = {
        "google": ["drive_search", "drive_", "search"], "google_drive": ["search", ""], "create": ["agent"],
        "google-drive": ["search"], "a.b": ["t"], "a_b": ["t"], "@org/name": ["x" * 80, "x" * 81], "n" * 90: ["t"],
    }  # fmt: skip
    names = Names(list(servers), own=["create_agent"])
    given = [(server, tool, name) for server in servers for tool, name in names.of(server, servers[server]).items()]
    used = [name for _, tool, name in given if tool]
    assert len(set(used)) == len(used)
    assert "create_agent" not in used
    assert all(len(name) <= MAX_NAME_CHARS for name in used)
    for server, tool, name in given:
        assert not tool or [other for other in servers if names.may_be(other, name)] == [server]


def test_names_do_not_depend_on_the_order_of_the_file() -> None:
    one, other = Names(["google", "google_drive"]), Names(["google_drive", "google"])
    for server in ("google", "google_drive"):
        tools = ["drive_search", "search"]
        assert one.of(server, tools) == other.of(server, tools)


holders: dict[asyncio.Task[None], list[None]] = {}
"""For each job that wants slots, the list that grows with each slot."""


async def hold(stack: AsyncExitStack, slots: CallSlots, session: str, number: int) -> list[asyncio.Task[None]]:
    """Takes slots, each in a job that holds it until the stack is closed or the test ends."""
    done = asyncio.Event()

    async def one() -> None:
        async with slots.slot(session):
            taken.append(None)
            await done.wait()

    taken: list[None] = []
    jobs = [asyncio.create_task(one()) for _ in range(number)]
    holders.update(dict.fromkeys(jobs, taken))
    stack.callback(done.set)
    for _ in range(3):
        await asyncio.sleep(0)
    return jobs


async def enters(slots: CallSlots, session: str) -> bool:
    """Tells whether a call gets a slot at once, which it then keeps."""
    (job,) = await hold(AsyncExitStack(), slots, session, 1)
    entered = len(holders[job]) == 1
    if not entered:
        job.cancel()
        await asyncio.wait({job})
    return entered


async def test_one_session_cannot_take_all_slots() -> None:
    slots = CallSlots()
    async with AsyncExitStack() as stack:
        await hold(stack, slots, "greedy", 40)
        for number in range(RESERVED):
            assert await enters(slots, f"modest{number}")
        assert not await enters(slots, "late")


async def test_sessions_that_wait_take_turns() -> None:
    slots, order = CallSlots(1), []
    async with asyncio.timeout(limit(10)):

        async def call(session: str) -> None:
            async with slots.slot(session):
                order.append(session)
                await asyncio.sleep(0)

        await asyncio.gather(*(call(session) for session in ("a", "a", "a", "b", "b", "c")))
    assert order == ["a", "a", "b", "c", "a", "b"]


async def test_a_call_that_is_cancelled_while_it_waits_takes_no_slot() -> None:
    slots = CallSlots(1)
    async with slots.slot("a"):
        waiting = await hold(AsyncExitStack(), slots, "b", 3)
        for job in waiting[:2]:
            job.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert waiting[0].cancelled()
    assert not waiting[2].done()
    assert not await enters(slots, "c")
    waiting[2].cancel()
    await asyncio.wait(waiting)
    assert await enters(slots, "c")


async def test_waiting_for_a_place_does_not_count_to_the_limit_of_a_call() -> None:
    """64 turns at once, each with a call that takes half of its limit."""
    slots, ended = CallSlots(), []
    seconds = limit(0.2)

    async def call(session: str) -> None:
        async with asyncio.timeout(2 * seconds) as clock:
            context = ToolContext(*(getattr(CONTEXT, name) for name in ToolContext.__slots__[:6]), clock=clock)  # type: ignore[attr-defined]
            async with slots.slot(session, context.untimed):
                await asyncio.sleep(seconds)
                ended.append(session)

    async with asyncio.timeout(limit(30)):
        await asyncio.gather(*(call(str(number)) for number in range(64)))
    assert len(ended) == 64


async def test_a_call_that_waits_too_long_is_told_that_it_did_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.mcp.call_slots.MAX_WAIT", 0.01)
    slots = CallSlots(1)
    async with slots.slot("a"):
        with pytest.raises(ServerBusy):
            async with slots.slot("b"):
                pass
    async with slots.slot("b"):
        pass

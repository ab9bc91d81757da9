"""The story of an agent in a browser, from nothing: make, look, run, schedule, change, run again, compare, undo.

API, executor and platform are killed once each on the way.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chat_page import ChatPage
from tests.browser.driving import Browser, Tab
from tests.e2e.agents import open_agent_stack
from tests.e2e.stack import Servers, Stack, bearer, new_user
from tests.e2e.test_agent_runs import KEY, adder, platform_of
from tests.servers.generator import generator_node
from tests.servers.ports import free_port
from tests.speed import lasting

_RUNS = "[...document.querySelectorAll('.runs:not(.schedules) > li')]"
_STATUSES = f"{_RUNS}.map((one) => one.querySelector('.run-status').innerText).join()"
_OUTPUTS = f"{_RUNS}.map((one) => one.querySelector('.outputs dd')?.innerText ?? '').join()"
_SCHEDULES = "[...document.querySelectorAll('.schedules > li')].map((one) => one.innerText).join()"
_CARD = "[...document.querySelectorAll('.tool .outputs dd')].map((one) => one.innerText).join()"


@dataclass
class Machine:
    """A stack with a platform whose data survives a kill, and a page of a new user."""

    stack: Stack
    page: ChatPage
    platform: AsyncExitStack
    folder: Path
    port: int

    async def kill_platform(self) -> None:
        await self.platform.aclose()

    async def start_platform(self) -> None:
        data = {"PLATFORM_DATA": str(self.folder / "platform"), "PLATFORM_API_KEY": KEY}
        await self.platform.enter_async_context(generator_node(self.folder, port=self.port, **data))

    async def kill(self, kind: str) -> None:
        """Kills the API or the executor, and starts it again on its port."""
        (child,) = self.stack.apis if kind == "api" else self.stack.executors
        child.send(signal.SIGKILL)
        await child.ended()
        await self.stack.start_again(child)

    async def add_agent(self, document: dict[str, Any]) -> str:
        async with self.stack.client(self.page.user) as client:
            answer = await client.post("/api/library/agents", json=document)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture
async def machine(browser: Browser, postgres_dsn: str, redis_dsn: str, tmp_path: Path) -> AsyncIterator[Machine]:
    port = free_port()
    async with AsyncExitStack() as things:
        platform = await things.enter_async_context(AsyncExitStack())
        data = {"PLATFORM_DATA": str(tmp_path / "platform"), "PLATFORM_API_KEY": KEY}
        node = await platform.enter_async_context(generator_node(tmp_path, port=port, **data))
        servers = Servers(postgres_dsn, redis_dsn)
        stack = await things.enter_async_context(open_agent_stack(servers, node, tmp_path, **platform_of(node)))
        user = new_user()
        tab = await browser.open(user, bearer(user)["authorization"].removeprefix("Bearer "))
        things.push_async_callback(tab.close)
        page = ChatPage(tab, user, stack.base)
        await page.go("/")
        yield Machine(stack, page, platform, tmp_path, port)


async def _fill(tab: Tab, *values: str) -> None:
    for place, value in enumerate(values, 1):
        await tab.type(f".sheet > .ask p:nth-of-type({place}) input", value)


async def test_the_story_of_an_agent_from_nothing(machine: Machine) -> None:
    page, tab = machine.page, machine.page.tab
    await page.send("Create an agent that adds two numbers")
    await tab.until("document.querySelector('.tool')?.innerText.includes('is in your library')")
    await page.until_idle(2)
    conversation = await page.path()
    await machine.kill("executor")
    await page.send("Run it with 2 and 3")
    await tab.until(f"{_CARD} === '5'")
    await page.send("Run it every morning at 8")
    await tab.until("document.querySelectorAll('.tool').length === 3")
    await page.until_idle(5)

    await tab.click(".tool .button.primary")  # look
    await tab.until(f"{_STATUSES} === 'Completed' && {_OUTPUTS} === '5'")
    await tab.until(f"{_SCHEDULES}.includes('At 08:00 every day') && {_SCHEDULES}.includes('Next run')")
    agent = await page.path()
    assert await page.serious_faults() == []

    await machine.kill_platform()  # run
    await _fill(tab, "4", "5")
    await tab.click(".sheet > .ask [type=submit]")
    await tab.until("document.querySelector('.sheet > .ask .problem') !== null")
    await machine.start_platform()
    await tab.click(".sheet > .ask [type=submit]")
    await tab.until(f"{_OUTPUTS} === '9,5'")

    await tab.click(".schedules button::-p-text(Pause)")
    await tab.until(f"{_SCHEDULES}.includes('Paused')")
    await tab.click(".schedules button::-p-text(Resume)")
    await tab.until(f"{_SCHEDULES}.includes('Next run')")
    await tab.click(".schedules button::-p-text(Remove)")
    await tab.until(f"{_SCHEDULES} === ''")
    await tab.click(".sheet button::-p-text(New schedule)")
    await tab.until("document.querySelector('.new-schedule [type=time]').value === '08:00'")
    assert await page.serious_faults() == []
    for place in (1, 2):
        await tab.type(f".new-schedule .ask p:nth-of-type({place}) input", str(place))
    await tab.click(".new-schedule .ask [type=submit]")
    await tab.until(f"{_SCHEDULES}.includes('At 08:00 every day')")

    await page.go(conversation)  # change
    await page.send(f"Change the agent {agent.rpartition('/')[2]} like this: multiply two numbers")
    await tab.until("document.body.innerText.includes('as version 2')")
    await page.until_idle(7)
    await page.go(agent)
    await tab.until("document.querySelectorAll('.versions li').length === 2")
    await tab.until("document.querySelector('.sheet > .ask [type=submit]') !== null")
    fields = await tab.js("document.querySelectorAll('.sheet > .ask p:not(.row) input').length")
    await _fill(tab, *map(str, range(2, 2 + fields)))
    await tab.click(".sheet > .ask [type=submit]")  # run again, and see both results
    await tab.until(f"{_STATUSES} === 'Completed,Completed,Completed'")
    assert (await tab.js(_OUTPUTS)).split(",")[1:] == ["9", "5"]
    versions = await tab.js(f"{_RUNS}.map((one) => one.querySelector('.note').innerText.at(-1))")
    assert versions == ["2", "1", "1"]

    await tab.js("document.querySelector('.sheet select').focus()")  # compare
    await tab.press("ArrowDown")
    await tab.until("document.querySelectorAll('.comparison .graph').length === 2")
    await tab.until("document.querySelectorAll('.comparison .change.added').length > 0")
    assert await page.serious_faults() == []
    await tab.click(".versions li:last-child button")  # undo
    await tab.click(".sheet button::-p-text(Make version 1 the newest)")
    await tab.until("document.querySelectorAll('.versions li').length === 3")
    await tab.until("document.querySelectorAll('.sheet > .ask p:not(.row) input').length === 2")
    await _fill(tab, "20", "3")
    await tab.click(".sheet > .ask [type=submit]")
    await tab.until(f"{_OUTPUTS}.startsWith('23,')")


async def test_the_progress_of_a_run_is_shown_while_the_api_is_killed(machine: Machine) -> None:
    page, tab = machine.page, machine.page.tab
    agent = await machine.add_agent(adder(lasting(3)))
    await page.go(f"/library/agents/{agent}")
    await tab.until("document.querySelector('.sheet > .ask [type=submit]') !== null")
    await _fill(tab, "2", "3")
    await tab.click(".sheet > .ask [type=submit]")
    await tab.until("document.querySelector('.steps .running')?.innerText.startsWith('wait')")
    assert await page.serious_faults() == []
    await machine.kill("api")
    await tab.until(f"{_STATUSES} === 'Completed' && {_OUTPUTS} === '5'")
    await tab.until("[...document.querySelectorAll('.steps li')].every((one) => one.className === 'completed')")

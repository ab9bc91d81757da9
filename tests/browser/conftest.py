"""What the tests of the page share: a browser, a stack with a generator, and a chat page of a new user.

Without chromium or npm these tests are skipped, and say what would bring them.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from tests.browser.chat_page import ChatPage
from tests.browser.driving import FOLDER, Browser, open_browser
from tests.e2e.agents import household
from tests.e2e.stack import ROOT, Servers, Stack, bearer, new_user
from tests.own_stores import generator, postgres_dsn, redis_dsn
from tests.servers.chromium_install import HINT, find
from tests.servers.generator import GeneratorNode

__all__ = ["generator", "postgres_dsn", "redis_dsn"]

OpenPage: TypeAlias = Callable[..., Awaitable[ChatPage]]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    chromium = find()
    if chromium is None:
        pytest.skip(HINT)
    if shutil.which("npm") is None:
        pytest.skip("the page is not tested: it needs Node.js 20 or later with npm")
    if not (FOLDER / "node_modules").is_dir() or not (ROOT / "backend" / "api" / "page" / "index.html").exists():
        pytest.fail("run: make node page")
    async with open_browser(chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
async def house(
    browser: Browser,
    postgres_dsn: str,
    redis_dsn: str,
    generator: GeneratorNode,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    servers = Servers(postgres_dsn, redis_dsn)
    async with household(servers, generator, tmp_path_factory.mktemp("home")) as stack:
        yield stack


@pytest.fixture
async def home(house: Stack) -> Stack:
    """One API and one executor, whole at the beginning of each test; a test that ends one starts another."""
    return await made_whole(house)


async def made_whole(house: Stack) -> Stack:
    if not house.apis:
        await house.start_api(port=next(child.port for child in house.children if child.kind == "api"))
    if not house.executors:
        await house.start_executor()
    return house


@pytest.fixture
async def open_page(browser: Browser, home: Stack) -> AsyncIterator[OpenPage]:
    """Opens the page: of a new user, or (`user=`) another tab of one, or of nobody (`known=False`); `at=`: a path,
    `base=`: another way to the API.

    At the end of the test its pages must not have complained of anything.
    """
    opened: list[ChatPage] = []

    async def open(
        user: str | None = None, at: str = "/", *, known: bool = True, base: str | None = None, **window: object
    ) -> ChatPage:
        user = user or new_user()
        token = bearer(user)["authorization"].removeprefix("Bearer ") if known else None
        tab = await browser.open(user, token, **window)
        page = ChatPage(tab, user, base or home.base)
        opened.append(page)
        await page.go(at)
        return page

    yield open
    complaints = [line for page in opened for line in await page.tab.errors()]
    for page in opened:
        await page.tab.close()
    assert complaints == []

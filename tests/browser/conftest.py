"""Fixtures of the page's tests: a browser, a stack with a generator, and chat pages of new users.

Without chromium or npm these tests are skipped, with the command that installs it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from tests import ROOT
from tests.browser.chat_page import ChatPage
from tests.browser.driving import FOLDER, Browser, open_browser
from tests.e2e.agents import open_agent_stack
from tests.e2e.stack import Servers, Stack, bearer, new_user
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
async def shared_stack(
    browser: Browser,
    postgres_dsn: str,
    redis_dsn: str,
    generator: GeneratorNode,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    servers = Servers(postgres_dsn, redis_dsn)
    platform = {"PLATFORM_URL": f"{generator.url}/api/v1", "SHARE_LINKS": "True"}
    async with open_agent_stack(servers, generator, tmp_path_factory.mktemp("stack"), **platform) as stack:
        yield stack


@pytest.fixture
async def stack(shared_stack: Stack) -> Stack:
    """One API and one executor. Both run at the beginning of each test."""
    return await repaired(shared_stack)


async def repaired(shared_stack: Stack) -> Stack:
    """Starts an API and an executor if the last test has left none. Returns the stack."""
    if not shared_stack.apis:
        await shared_stack.start_api(port=next(child.port for child in shared_stack.children if child.kind == "api"))
    if not shared_stack.executors:
        await shared_stack.start_executor()
    return shared_stack


@pytest.fixture
async def open_page(browser: Browser, stack: Stack) -> AsyncIterator[OpenPage]:
    """A function that opens the page of a new user. `user` opens another tab of that user, `known=False` a page without
    a token. `at` is the path, and `base` the URL of the API, for example of a proxy.

    The test fails if the console of one of its pages shows an error.
    """
    opened: list[ChatPage] = []

    async def open(
        user: str | None = None, at: str = "/", *, known: bool = True, base: str | None = None, **window: object
    ) -> ChatPage:
        user = user or new_user()
        token = bearer(user)["authorization"].removeprefix("Bearer ") if known else None
        tab = await browser.open(user, token, **window)
        page = ChatPage(tab, user, base or stack.base)
        opened.append(page)
        await page.go(at)
        return page

    yield open
    errors = [line for page in opened for line in await page.tab.errors()]
    for page in opened:
        await page.tab.close()
    assert errors == []

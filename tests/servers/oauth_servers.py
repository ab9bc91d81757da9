"""The tool servers of `tests/fakes/oauth_server.py`, and the way of a browser through a sign-in at one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.servers.mcp_install import FASTMCP_HINT, find_or_install_fastmcp
from tests.servers.starting import OutputFile, listens, until_ready

CLIENT = {
    "client_id": "known",
    "client_secret": "a secret of the known client",
    "token_endpoint_auth_method": "client_secret_basic",
    "scope": "read write",
}


@asynccontextmanager
async def oauth_servers(ports: Sequence[int], client: Mapping[str, Any]) -> AsyncIterator[None]:
    """Starts four servers in one process, and kills it when the block is left. `client` is known to the second."""
    python = find_or_install_fastmcp()
    if python is None:
        pytest.skip(FASTMCP_HINT)
    with OutputFile() as output_file:
        process = await asyncio.create_subprocess_exec(
            *(python, "tests/fakes/oauth_server.py", *map(str, ports)),
            cwd=ROOT, stdout=output_file, stderr=output_file, env={"CLIENT": json.dumps(client)},
        )  # fmt: skip
        try:
            for port in ports:
                await until_ready(process, "the OAuth servers", lambda port=port: listens(port), output_file.tail)  # type: ignore[misc]
            yield
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def left(browser: httpx.AsyncClient, link: str) -> str:
    """Opens the link and goes on to the authorization server. Returns the URL there."""
    page = await browser.get(link, headers={"sec-fetch-site": "cross-site"})
    assert page.status_code == 200, page.text
    (href,) = re.findall(r'href="([^"]+)"', page.text)
    answer = await browser.get(httpx.URL(link).join(href.replace("&amp;", "&")))
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


async def sent_back(browser: httpx.AsyncClient, url: str) -> str:
    """Visits the authorization server, which agrees at once. Returns the URL of the callback."""
    answer = await browser.get(url)
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


async def signed_in_with(browser: httpx.AsyncClient, link: str) -> httpx.Response:
    """Goes the whole way. Returns the page at its end."""
    callback = await sent_back(browser, await left(browser, link))
    return await browser.get(callback, headers={"sec-fetch-site": "cross-site"})

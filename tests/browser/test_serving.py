"""Tests of how the page is served: at all of its addresses, with a strict policy, small, and cached."""

from __future__ import annotations

import gzip
import re

from tests.e2e.stack import Stack

FIRST_LOAD = 175_000
"""The limit, in compressed bytes, for what is loaded before the page can be used."""


async def test_the_page_is_served_at_all_of_its_addresses_with_a_strict_policy(stack: Stack) -> None:
    async with stack.client() as client:
        for path in ("/", "/c/0123456789abcdef", "/library", "/library/agents/x", "/build?flowID=x"):
            page = await client.get(path)
            assert page.status_code == 200
            assert 'id="page"' in page.text
            assert page.headers["cache-control"] == "no-cache"
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert " style=" not in page.text
            assert "<script>" not in page.text
        assert (await client.get("/assets/unknown.js")).status_code == 404
        assert (await client.get("/try")).text.count("<form") == 1


async def test_the_first_load_is_small_and_its_files_are_cached_as_immutable(stack: Stack) -> None:
    async with stack.client() as client:
        page = await client.get("/")
        size = 0
        for path in [*re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css))"', page.text), "/"]:
            plain = await client.get(path, headers={"accept-encoding": "identity"})
            async with client.stream("GET", path, headers={"accept-encoding": "gzip"}) as packed:
                raw = b"".join([part async for part in packed.aiter_raw()])
            assert packed.headers["content-encoding"] == "gzip"
            assert gzip.decompress(raw) == plain.content
            assert ("immutable" in plain.headers["cache-control"]) == path.startswith("/assets/")
            size += len(raw)
        assert size < FIRST_LOAD

"""Schemathesis over the OpenAPI document: no 5xx, and nothing that the document does not say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from tests.faults.scale import scale
from tests.integration.agents import an_agent
from tests.integration.api_house import ApiHouse, api_house, token
from tests.speed import limit

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,unsupported_method"
)
SCHEMATHESIS = "import schemathesis.transport.asgi; from schemathesis.cli import schemathesis; schemathesis()"
"""Its threads must not import anyio themselves. anyio 4 parses its own source for that, and CPython up to 3.11.7 fails
when two threads build syntax trees at once (gh-106905). Its coverage phase fails for that reason, too."""


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[ApiHouse]:
    limits = {"max_running_turns": 1000, "max_waiting_turns": 1000, "max_open_streams": 100}
    async with api_house(postgres_dsn, redis_dsn, **limits) as house:
        yield house


async def test_schemathesis_finds_nothing(api: ApiHouse) -> None:
    async with api.house.database.connection() as c:
        await an_agent(c, "schemathesis", id="0", name="0")  # the id that it likes best
    document = f"http://127.0.0.1:{api.port}/api/chat/openapi.json"
    command = [
        sys.executable, "-c", SCHEMATHESIS, "run", document,
        "--checks", CHECKS, "--phases", "examples,fuzzing",
        "--max-examples", str(scale(15, 100)), "--seed", "20261123", "--request-timeout", f"{limit(7):.0f}",
        "--no-color", "--workers", "4",
        "--suppress-health-check", "all", "--max-time", f"{limit(scale(10, 300)):.0f}",
        "-H", f"Authorization: Bearer {token('schemathesis')}",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), limit(scale(110, 1000)))
    assert process.returncode == 0, output.decode()[-8000:]

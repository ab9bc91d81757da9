"""Runs Schemathesis over the OpenAPI document, which finds each 5xx and each answer that the document lacks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from tests.fakes.agent_platform import fake_platform
from tests.faults.scale import scale
from tests.integration.agents import an_agent
from tests.integration.running_api import RunningApi, running_api, token
from tests.speed import limit

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,unsupported_method"
)
SCHEMATHESIS = "import schemathesis.transport.asgi; from schemathesis.cli import schemathesis; schemathesis()"
"""Imports the ASGI transport before the threads start, so that they do not import anyio. anyio 4 parses its own source
at import, and CPython up to 3.11.7 fails if two threads build syntax trees at once (gh-106905). The coverage phase is
left out because it fails for the same reason."""


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    limits = {"max_running_turns": 1000, "max_waiting_turns": 1000, "max_open_streams": 100}
    async with fake_platform() as platform, running_api(postgres_dsn, redis_dsn, **limits, **platform.settings) as api:
        yield api


async def test_the_api_conforms_to_its_openapi_document(api: RunningApi) -> None:
    async with api.resources.database.connection() as c:
        await an_agent(c, "schemathesis", id="0", name="0")  # the id that Schemathesis tries most
    document = f"http://127.0.0.1:{api.port}/api/chat/openapi.json"
    command = [
        sys.executable, "-c", SCHEMATHESIS, "run", document,
        "--checks", CHECKS, "--phases", "examples,fuzzing",
        "--max-examples", str(scale(8, 100)), "--seed", "20261123", "--request-timeout", f"{limit(7):.0f}",
        "--no-color", "--workers", "4",
        "--suppress-health-check", "all", "--max-time", f"{limit(scale(5, 300)):.0f}",
        "-H", f"Authorization: Bearer {token('schemathesis')}",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), limit(scale(110, 1000)))
    assert process.returncode == 0, output.decode()[-8000:]

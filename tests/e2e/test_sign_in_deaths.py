"""A user signs in at a tool server while the executor of the call is dead."""

from __future__ import annotations

import asyncio
import base64
import signal
from pathlib import Path
from typing import Any

from tests.e2e.chat_api import asked, ending_of, followed, history_of, open_session
from tests.e2e.stack import Servers, new_user
from tests.e2e.test_mcp_turns import stack_with
from tests.plain_http import http_client
from tests.servers.oauth_servers import CLIENT, oauth_servers, signed_in_with
from tests.servers.ports import free_port
from tests.speed import limit

LIMIT = limit(30)
KEY = base64.b64encode(bytes(32)).decode()


async def test_a_call_is_made_after_the_sign_in_although_its_executor_was_killed(
    postgres_dsn: str, redis_dsn: str, tmp_path: Path
) -> None:
    ports = [free_port() for _ in range(4)]
    mcp = {"docs": {"url": f"http://127.0.0.1:{ports[0]}/mcp", "auth": "oauth"}}
    settings = {"ASK_USER": "always", "MCP_TOKEN_KEYS": KEY}
    port = free_port()
    settings["PLATFORM_BASE_URL"] = f"http://127.0.0.1:{port}"
    async with (
        oauth_servers(ports, {**CLIENT, "redirect_uris": ["http://127.0.0.1/callback"]}),
        stack_with(Servers(postgres_dsn, redis_dsn), tmp_path, mcp, **settings) as stack,
        http_client(timeout=LIMIT) as browser,
        stack.client(new_user()) as client,
    ):
        await stack.start_api(port=port)
        session = await open_session(client)
        async with asked(client, session, "/tool docs_whoami") as stream:
            await asyncio.wait_for(stream.rest(), LIMIT)
        (question,) = (await client.get(f"/api/chat/sessions/{session}")).json()["operations"]
        stack.executors[0].send(signal.SIGKILL)
        page = await signed_in_with(browser, question["asks"]["url"])
        assert (page.status_code, "signed in" in page.text) == (200, True), page.text
        await stack.start_executor()
        async with followed(client, question["task_id"]) as stream:
            assert ending_of(await asyncio.wait_for(stream.rest(), LIMIT)) == "completed"
        *_, output = await outputs_in(client, session)
        assert (output["type"], output["block_id"]) == ("block_output", "docs.whoami")
        assert "test_access_token" not in stack.logs()
        assert "test_auth_code" not in stack.logs()


async def outputs_in(client: Any, session: str) -> list[dict[str, Any]]:
    """Returns the outputs of tools in a session."""
    messages = await history_of(client, session)
    return [part["output"] for message in messages for part in message["parts"] if part["type"] == "dynamic-tool"]

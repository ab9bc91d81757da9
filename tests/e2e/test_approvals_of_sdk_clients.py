"""Approvals and tools of the page with the AI SDK's own clients.

Approvals: 6 and 7 speak them natively, 5 and plain clients use the route.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.sdk import VERSIONS, Act, SdkClients
from tests.e2e.stack import Servers, Stack, bearer, new_session, new_user, open_stack

NATIVE = [version for version in VERSIONS if not version.startswith("5.")]
OPEN: Act = {"act": "open", "tab": "a", "accept": "tool-approval-request"}


@pytest.fixture(scope="module")
async def asking_stack(
    postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    servers = Servers(postgres_dsn, redis_dsn)
    async with open_stack(servers, tmp_path_factory.mktemp("stack"), TOOL_APPROVAL="add_*=ask") as stack:
        yield stack


def learn(*names: str) -> str:
    return "\n".join(f"/tool add_understanding {json.dumps({'user_name': name})}" for name in names)


def calls_in(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in message["parts"] if part["type"] == "dynamic-tool"]


@pytest.mark.parametrize("sdk", NATIVE)
async def test_a_native_client_approves_one_call_and_denies_another(
    asking_stack: Stack, sdk_clients: SdkClients, sdk: str
) -> None:
    session, headers = new_session(), bearer(new_user())
    acts: list[Act] = [
        OPEN, {"act": "send", "tab": "a", "text": learn("Ada", "Eve")},
        {"act": "approve", "tab": "a", "decisions": [True, False]},
        {"act": "send", "tab": "a", "text": "/stream 3"},
    ]  # fmt: skip
    report = await sdk_clients.play(sdk, asking_stack.base, session, acts, headers=headers)
    assert report.faults == []
    tab = report.tabs["a"]
    assert tab.roles == ["user", "assistant", "user", "assistant"], "the answer continues in its message"
    assert tab.text == "0 1 2 "
    approved, denied = calls_in(tab.messages[1])
    assert approved["output"]["type"] == "understanding_updated"
    assert denied["state"] == "output-denied"
    texts = [part["text"] for part in tab.messages[1]["parts"] if part["type"] == "text"]
    assert len(texts) == 1, "the model speaks when both are decided"


@pytest.mark.parametrize("sdk", NATIVE)
async def test_a_native_client_approves_after_a_reload(asking_stack: Stack, sdk_clients: SdkClients, sdk: str) -> None:
    session, headers = new_session(), bearer(new_user())
    asking = await sdk_clients.play(
        sdk, asking_stack.base, session, [OPEN, {"act": "send", "tab": "a", "text": learn("Ada")}], headers=headers
    )
    assert asking.faults == []
    assert calls_in(asking.tabs["a"].last)[0]["state"] == "approval-requested"
    again: list[Act] = [{**OPEN, "hydrate": True}, {"act": "approve", "tab": "a", "decisions": [True]}]
    report = await sdk_clients.play(sdk, asking_stack.base, session, again, headers=headers)
    assert report.faults == []
    (call,) = calls_in(report.tabs["a"].last)
    assert call["output"]["type"] == "understanding_updated"
    assert report.tabs["a"].text


@pytest.mark.parametrize("sdk", VERSIONS)
async def test_every_client_sees_the_call_wait_and_the_route_decides(
    asking_stack: Stack, sdk_clients: SdkClients, sdk: str
) -> None:
    user, session = new_user(), new_session()
    acts: list[Act] = [{"act": "open", "tab": "a"}, {"act": "send", "tab": "a", "text": learn("Ada")}]
    report = await sdk_clients.play(sdk, asking_stack.base, session, acts, headers=bearer(user))
    assert report.faults == []
    (call,) = calls_in(report.tabs["a"].last)
    assert (call["state"], call["output"]["asks"]) == ("output-available", "approval")
    async with asking_stack.client(user) as client:
        path = f"/api/chat/operations/{call['output']['operation_id']}/answer"
        assert (await client.post(path, json={"approved": True})).status_code == 200
    shown: list[Act] = [
        {"act": "open", "tab": "b", "attach": "task", "task": call["output"]["task_id"]},
        {"act": "resume", "tab": "b"},
    ]
    continued = await sdk_clients.play(sdk, asking_stack.base, session, shown, headers=bearer(user))
    assert continued.faults == []
    assert calls_in(continued.tabs["b"].last)[0]["output"]["type"] == "understanding_updated"


@pytest.mark.parametrize("sdk", VERSIONS)
async def test_every_client_carries_out_the_tools_of_its_page(
    asking_stack: Stack, sdk_clients: SdkClients, sdk: str
) -> None:
    session, headers = new_session(), bearer(new_user())
    named = {"page_tools": [{"name": "get_location", "description": "Where the user is."}]}
    calls = "/tool get_location {}\n/tool get_location {}"
    acts: list[Act] = [
        {"act": "open", "tab": "a", "accept": "page-tools"},
        {"act": "send", "tab": "a", "text": calls, "body": named},
        {"act": "output", "tab": "a", "outputs": [{"lat": 1}, {"lat": 2}]},
        {"act": "send", "tab": "a", "text": "/stream 3"},
    ]  # fmt: skip
    report = await sdk_clients.play(sdk, asking_stack.base, session, acts, headers=headers)
    assert report.faults == []
    tab = report.tabs["a"]
    assert [call["tool"] for call in tab.calls if call["call"] == "onToolCall"] == ["get_location"] * 2
    assert tab.roles == ["user", "assistant", "user", "assistant"]
    assert [call["output"]["outputs"] for call in calls_in(tab.messages[1])] == [{"lat": 1}, {"lat": 2}]
    assert [part["text"] for part in tab.messages[1]["parts"] if part["type"] == "text"]

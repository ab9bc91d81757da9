"""Agents that are made, changed and kept, as a user lives it: with API, executor and generator as processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.e2e.agents import GOAL, begin, create, household, library_of, next_work, outputs, result_in
from tests.e2e.sdk import VERSIONS, Act, SdkClients
from tests.e2e.sse import text_of
from tests.e2e.stack import Servers, Stack, bearer, new_session, new_user
from tests.e2e.talk import asked, ending_of, followed, history_of, open_session, text_in
from tests.servers.generator import GeneratorNode


@pytest.fixture(scope="module")
async def home(
    servers: Servers, generator: GeneratorNode, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """Shared by the tests that break nothing."""
    async with household(servers, generator, tmp_path_factory.mktemp("home")) as stack:
        yield stack


@pytest.mark.parametrize("way", ["202-webhook", "202-stream", "202-webhook keyed", "202-webhook duplicate 3"])
async def test_an_agent_that_was_asked_for_is_in_the_library_and_the_conversation_goes_on(
    home: Stack, way: str
) -> None:
    async with home.client(new_user()) as client:
        session, told = await begin(client, create(f"[generator: {way} delay=0.3]"))
        async with followed(client, told["task_id"]) as stream:
            (saved,) = await outputs(stream)
        assert saved["type"] == "agent_saved", saved
        assert ending_of(stream.events) == "completed"
        (agent,) = await library_of(client)
        assert agent["id"] == saved["library_agent_id"]
        assert saved["library_agent_link"] == f"/library/agents/{agent['id']}"
        whole = (await client.get(f"/api/library/agents/{agent['id']}")).json()
        assert whole["graph"]["nodes"]
        assert await result_in(client, session) == saved
        messages = await history_of(client, session)
        assert [message["role"] for message in messages] == ["user", "assistant", "assistant"]
        assert text_in(messages[-1]) == text_of(stream.events) != ""


@pytest.mark.parametrize(
    ("description", "more", "type", "facts"),
    [
        ("agent", {}, "suggested_goal", {"goal_type": "vague"}),
        ("Every day read the minds of my customers and tell me", {}, "suggested_goal", {"goal_type": "unachievable"}),
        ("Ask me what to do with my mails and then do it", {}, "clarification_needed", {}),
        (f"{GOAL} [generator: 200]", {}, "agent_saved", {}),
        (f"{GOAL} [generator: 200]", {"save": False}, "agent_preview", {}),
        (f"{GOAL} [generator: 200 clarify]", {}, "clarification_needed", {}),
        (f"{GOAL} [generator: 200 fail error_type=patch_error]", {}, "error", {"error": "patch_error"}),
        (f"{GOAL} [generator: malformed]", {}, "error", {"error": "invalid_response"}),
        (f"{GOAL} [generator: decompose status=504]", {}, "error", {"error": "timeout"}),
    ],
)
async def test_what_is_answered_at_once(
    home: Stack, description: str, more: dict[str, Any], type: str, facts: dict[str, Any]
) -> None:
    async with home.client(new_user()) as client:
        session = await open_session(client)
        said = {"description": description, **more}
        async with asked(client, session, f"/tool create_agent {json.dumps(said)}") as stream:
            (told,) = await outputs(stream)
        assert told["type"] == type, told
        assert facts.items() <= told.items()
        assert "http" not in json.dumps(told)
        assert len(await library_of(client)) == (type == "agent_saved")
        assert (await client.get(f"/api/chat/sessions/{session}")).json()["operations"] == []


async def test_an_agent_is_found_and_changed_by_its_user_alone(home: Stack) -> None:
    user = new_user()
    async with home.client(user) as client, home.client(new_user()) as stranger:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200]")) as stream:
            (saved,) = await outputs(stream)
        change = {"agent_id": saved["library_agent_id"], "changes": "Send it at 9 instead [generator: delay=0.2]"}
        theirs = await open_session(stranger)
        async with asked(stranger, theirs, f"/tool edit_agent {json.dumps(change)}") as stream:
            (refused,) = await outputs(stream)
        assert (refused["type"], refused["error"]) == ("error", "agent_not_found")
        _, told = await begin(client, f"/tool edit_agent {json.dumps(change)}")
        async with followed(client, told["task_id"]) as stream:
            (changed,) = await outputs(stream)
        assert changed["library_agent_id"] == saved["library_agent_id"]
        versions = (await client.get(f"/api/library/agents/{saved['library_agent_id']}/versions")).json()["versions"]
        assert [version["version"] for version in versions] == [2, 1]
        async with asked(client, session, '/tool find_library_agent {"query": "mail"}') as stream:
            (found,) = await outputs(stream)
        assert [agent["id"] for agent in found["agents"]] == [saved["library_agent_id"]]


async def test_an_agent_that_is_deleted_while_it_is_changed_stays_deleted(home: Stack) -> None:
    async with home.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200]")) as stream:
            (saved,) = await outputs(stream)
        change = {"agent_id": saved["agent_id"], "changes": "Send it at 9 [generator: delay=1]"}
        _, told = await begin(client, f"/tool edit_agent {json.dumps(change)}")
        deleted = await client.delete(f"/api/library/agents/{saved['library_agent_id']}")
        assert deleted.status_code == 204
        async with followed(client, told["task_id"]) as stream:
            (refused,) = await outputs(stream)
        assert (refused["type"], refused["error"]) == ("error", "agent_not_found")
        assert await library_of(client) == []


async def test_a_template_is_made_ones_own(home: Stack) -> None:
    async with home.client(new_user()) as client:
        wish = {"agent_id": "acme/mail-digest", "modifications": "In Italian [generator: delay=0.2]"}
        session, told = await begin(client, f"/tool customize_agent {json.dumps(wish)}")
        async with followed(client, told["task_id"]) as stream:
            (saved,) = await outputs(stream)
        assert saved["type"] == "agent_saved"
        unknown = {"agent_id": "../../etc/passwd", "modifications": "x"}
        async with asked(client, session, f"/tool customize_agent {json.dumps(unknown)}") as stream:
            (refused,) = await outputs(stream)
        assert refused["error"] == "template_not_found"


async def test_a_turn_that_is_cancelled_takes_along_what_nobody_has_accepted(
    home: Stack, generator: GeneratorNode
) -> None:
    async with home.client(new_user()) as client, next_work(generator) as work:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200 delay=2]")) as stream:
            await work()
            await client.post(f"/api/chat/sessions/{session}/cancel")
            await stream.rest()
        assert ending_of(stream.events) == "cancelled"
        assert (await client.get(f"/api/chat/sessions/{session}")).json()["operations"] == []
        assert await library_of(client) == []


async def test_whoever_is_not_signed_in_is_asked_to(home: Stack) -> None:
    async with home.client() as client:
        session = await open_session(client)
        async with asked(client, session, create()) as stream:
            (told,) = await outputs(stream)
        assert told["type"] == "need_login"


@pytest.mark.parametrize("sdk", VERSIONS)
async def test_every_sdk_client_takes_an_operation_from_its_start_and_from_any_cursor(
    home: Stack, sdk_clients: SdkClients, sdk: str
) -> None:
    user, session = new_user(), new_session()
    headers = bearer(user)
    asking: list[Act] = [
        {"act": "open", "tab": "a"},
        {"act": "send", "tab": "a", "text": create("[generator: 202-webhook progress delay=1]")},
    ]
    report = await sdk_clients.play(sdk, home.base, session, asking, headers=headers)
    assert report.faults == []
    async with home.client(user) as client:
        (operation,) = (await client.get(f"/api/chat/sessions/{session}")).json()["operations"]
        task = operation["task_id"]
        live: list[Act] = [
            {"act": "open", "tab": "live", "attach": "task", "task": task},
            {"act": "resume", "tab": "live"},
        ]
        report = await sdk_clients.play(sdk, home.base, session, live, headers=headers)
        assert report.faults == []
        cuts = [1, 2, 3, 4, 5]
        replays: list[Act] = [
            {"act": "open", "tab": "cut", "attach": "task", "task": task, "cuts": cuts},
            {"act": "resume", "tab": "cut"},
            {"act": "open", "tab": "after", "hydrate": True},
        ]
        late = await sdk_clients.play(sdk, home.base, session, replays, headers=headers)
        assert late.faults == []
        (whole,) = report.tabs["live"].messages
        (cut,) = late.tabs["cut"].messages
        kept = late.tabs["after"].messages[-1]
        look: Callable[[dict[str, Any]], Any] = lambda m: [  # noqa: E731
            {k: v for k, v in p.items() if k not in ("callProviderMetadata", "preliminary")} for p in m["parts"]
        ]
        assert look(whole) == look(cut) == look(kept)
        assert whole["id"] == kept["id"]

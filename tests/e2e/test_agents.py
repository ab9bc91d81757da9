"""Tests of creating, editing and storing agents, with API, executor and generator as processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.e2e.agents import GOAL, begin, create, library_of, next_work, open_agent_stack, outputs, result_in
from tests.e2e.chat_api import asked, ending_of, followed, history_of, open_session, text_in
from tests.e2e.sdk import VERSIONS, Act, SdkClients
from tests.e2e.sse import text_of
from tests.e2e.stack import Servers, Stack, bearer, new_session, new_user
from tests.servers.generator import GeneratorNode


@pytest.fixture(scope="module")
async def stack(
    servers: Servers, generator: GeneratorNode, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A stack that the tests share. None of them stops a process."""
    async with open_agent_stack(servers, generator, tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.mark.parametrize("reply", ["202-webhook", "202-stream", "202-webhook keyed", "202-webhook duplicate 3"])
async def test_a_created_agent_is_in_the_library_and_the_conversation_continues(stack: Stack, reply: str) -> None:
    async with stack.client(new_user()) as client:
        session, started = await begin(client, create(f"[generator: {reply} delay=0.3]"))
        async with followed(client, started["task_id"]) as stream:
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
async def test_create_agent_answers_at_once_with_the_expected_result(
    stack: Stack, description: str, more: dict[str, Any], type: str, facts: dict[str, Any]
) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        arguments = {"description": description, **more}
        async with asked(client, session, f"/tool create_agent {json.dumps(arguments)}") as stream:
            (output,) = await outputs(stream)
        assert output["type"] == type, output
        assert facts.items() <= output.items()
        assert "http" not in json.dumps(output)
        assert len(await library_of(client)) == (type == "agent_saved")
        assert (await client.get(f"/api/chat/sessions/{session}")).json()["operations"] == []


async def test_an_agent_is_found_and_changed_by_its_user_alone(stack: Stack) -> None:
    user = new_user()
    async with stack.client(user) as client, stack.client(new_user()) as stranger:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200]")) as stream:
            (saved,) = await outputs(stream)
        change = {"agent_id": saved["library_agent_id"], "changes": "Send it at 9 instead [generator: delay=0.2]"}
        theirs = await open_session(stranger)
        async with asked(stranger, theirs, f"/tool edit_agent {json.dumps(change)}") as stream:
            (refused,) = await outputs(stream)
        assert (refused["type"], refused["error"]) == ("error", "agent_not_found")
        _, started = await begin(client, f"/tool edit_agent {json.dumps(change)}")
        async with followed(client, started["task_id"]) as stream:
            (changed,) = await outputs(stream)
        assert changed["library_agent_id"] == saved["library_agent_id"]
        versions = (await client.get(f"/api/library/agents/{saved['library_agent_id']}/versions")).json()["versions"]
        assert [version["version"] for version in versions] == [2, 1]
        async with asked(client, session, '/tool find_library_agent {"query": "mail"}') as stream:
            (found,) = await outputs(stream)
        assert [agent["id"] for agent in found["agents"]] == [saved["library_agent_id"]]


async def test_the_later_of_two_edits_at_once_says_what_it_does_not_contain(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200]")) as stream:
            (made,) = await outputs(stream)
        assert (made["version"], made.get("base_version")) == (1, None)
        change = {"agent_id": made["agent_id"], "changes": "Send it at 9 [generator: delay=2]"}
        _, later = await begin(client, f"/tool edit_agent {json.dumps(change)}")
        change["changes"] = "Send it to Bob [generator: delay=0.1]"
        _, earlier = await begin(client, f"/tool edit_agent {json.dumps(change)}")
        async with followed(client, earlier["task_id"]) as stream:
            (first,) = await outputs(stream)
        assert (first["version"], first.get("base_version")) == (2, None)
        assert "in your library, as version 2. Since version 1: " in first["message"]
        async with followed(client, later["task_id"]) as stream:
            (second,) = await outputs(stream)
        assert (second["version"], second["base_version"]) == (3, 1)
        assert "version 3 does not contain their changes" in second["message"]
        assert "was made from version 1" in text_of(stream.events), "the model is told"
        path = f"/api/library/agents/{made['library_agent_id']}/versions"
        assert [one["version"] for one in (await client.get(path)).json()["versions"]] == [3, 2, 1]


async def test_an_agent_that_is_deleted_while_it_is_changed_stays_deleted(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200]")) as stream:
            (saved,) = await outputs(stream)
        change = {"agent_id": saved["agent_id"], "changes": "Send it at 9 [generator: delay=1]"}
        _, started = await begin(client, f"/tool edit_agent {json.dumps(change)}")
        deleted = await client.delete(f"/api/library/agents/{saved['library_agent_id']}")
        assert deleted.status_code == 204
        async with followed(client, started["task_id"]) as stream:
            (refused,) = await outputs(stream)
        assert (refused["type"], refused["error"]) == ("error", "agent_not_found")
        assert await library_of(client) == []


async def test_a_template_can_be_customized(stack: Stack) -> None:
    async with stack.client(new_user()) as client:
        request = {"agent_id": "acme/mail-digest", "modifications": "In Italian [generator: delay=0.2]"}
        session, started = await begin(client, f"/tool customize_agent {json.dumps(request)}")
        async with followed(client, started["task_id"]) as stream:
            (saved,) = await outputs(stream)
        assert saved["type"] == "agent_saved"
        unknown = {"agent_id": "../../etc/passwd", "modifications": "x"}
        async with asked(client, session, f"/tool customize_agent {json.dumps(unknown)}") as stream:
            (refused,) = await outputs(stream)
        assert refused["error"] == "template_not_found"


async def test_a_cancelled_turn_drops_an_operation_that_was_not_accepted_yet(
    stack: Stack, generator: GeneratorNode
) -> None:
    async with stack.client(new_user()) as client, next_work(generator) as work:
        session = await open_session(client)
        async with asked(client, session, create("[generator: 200 delay=2]")) as stream:
            await work()
            await client.post(f"/api/chat/sessions/{session}/cancel")
            await stream.rest()
        assert ending_of(stream.events) == "cancelled"
        assert (await client.get(f"/api/chat/sessions/{session}")).json()["operations"] == []
        assert await library_of(client) == []


async def test_an_anonymous_user_is_asked_to_sign_in(stack: Stack) -> None:
    async with stack.client() as client:
        session = await open_session(client)
        async with asked(client, session, create()) as stream:
            (output,) = await outputs(stream)
        assert output["type"] == "need_login"


@pytest.mark.parametrize("sdk", VERSIONS)
async def test_every_sdk_client_reads_an_operation_live_and_across_cuts(
    stack: Stack, sdk_clients: SdkClients, sdk: str
) -> None:
    user, session = new_user(), new_session()
    headers = bearer(user)
    asking: list[Act] = [
        {"act": "open", "tab": "a"},
        {"act": "send", "tab": "a", "text": create("[generator: 202-webhook progress delay=1]")},
    ]
    report = await sdk_clients.play(sdk, stack.base, session, asking, headers=headers)
    assert report.faults == []
    async with stack.client(user) as client:
        (operation,) = (await client.get(f"/api/chat/sessions/{session}")).json()["operations"]
        task = operation["task_id"]
        live: list[Act] = [
            {"act": "open", "tab": "live", "attach": "task", "task": task},
            {"act": "resume", "tab": "live"},
        ]
        report = await sdk_clients.play(sdk, stack.base, session, live, headers=headers)
        assert report.faults == []
        cuts = [1, 2, 3, 4, 5]
        replays: list[Act] = [
            {"act": "open", "tab": "cut", "attach": "task", "task": task, "cuts": cuts},
            {"act": "resume", "tab": "cut"},
            {"act": "open", "tab": "after", "hydrate": True},
        ]
        late = await sdk_clients.play(sdk, stack.base, session, replays, headers=headers)
        assert late.faults == []
        (whole,) = report.tabs["live"].messages
        (cut,) = late.tabs["cut"].messages
        kept = late.tabs["after"].messages[-1]
        shown: Callable[[dict[str, Any]], Any] = lambda m: [  # noqa: E731
            {k: v for k, v in p.items() if k not in ("callProviderMetadata", "preliminary")} for p in m["parts"]
        ]
        assert shown(whole) == shown(cut) == shown(kept)
        assert whole["id"] == kept["id"]

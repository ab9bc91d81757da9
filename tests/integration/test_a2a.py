"""A2A as its own client sees it (`a2a-sdk` from PyPI), with the client of docs/a2a.md."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from a2a.client import A2AClientError, Client, ClientConfig, create_client
from a2a.helpers import get_artifact_text, new_text_message
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict, ParseDict

from tests import ROOT
from tests.e2e.sse import counted
from tests.integration.running_api import RunningApi, new_id, running_api
from tests.plain_http import http_client
from tests.servers.receiver import receiver
from tests.speed import limit

PATH = "/api/chat/a2a"
RECIPE = re.compile(r"^```python a2a_client\.py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT = limit(30)
COMPLETED, CANCELED, FAILED = TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_CANCELED, TaskState.TASK_STATE_FAILED


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, webhook_private_networks="127.0.0.0/8") as api:
        yield api


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The client of docs/a2a.md."""
    found = RECIPE.search((ROOT / "docs" / "a2a.md").read_text())
    assert found is not None
    module = ModuleType("a2a_client")
    exec(compile(found[1], "a2a_client.py", "exec"), module.__dict__)
    return module


@asynccontextmanager
async def agent(api: RunningApi, headers: dict[str, str] | None = None, **config: Any) -> AsyncIterator[Client]:
    async with http_client(timeout=LIMIT, headers=headers) as http:
        yield await create_client(f"http://127.0.0.1:{api.port}", ClientConfig(httpx_client=http, **config))


def asking(text: str, context: str | None = None, **configuration: Any) -> SendMessageRequest:
    message = new_text_message(text, context_id=context, role=Role.ROLE_USER)
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(**configuration))


async def sent(client: Client, request: SendMessageRequest) -> list[StreamResponse]:
    async with asyncio.timeout(LIMIT):
        return [update async for update in client.send_message(request)]


def answer_in(updates: list[StreamResponse]) -> str:
    """The artifact as a client builds it."""
    text = ""
    for update in updates:
        if update.HasField("artifact_update"):
            piece = get_artifact_text(update.artifact_update.artifact, "")
            text = text + piece if update.artifact_update.append else piece
    return text


def answer_of(task: Task) -> str:
    return "".join(get_artifact_text(artifact, "") for artifact in task.artifacts)


async def test_a_message_is_streamed_and_its_task_is_the_same_afterwards(api: RunningApi) -> None:
    context = new_id()
    learn = '/tool add_understanding {"user_name":"Ada"}'
    async with agent(api, api.as_user()) as client:
        request = asking(f"/stream 5\n{learn}\n/then\n/stream 3", context)
        updates = await sent(client, request)
        first, last = updates[0].task, updates[-1].status_update
        assert (first.context_id, last.task_id, last.context_id) == (context, first.id, context)
        assert last.status.state == COMPLETED
        assert dict(last.metadata["usage"])["outputTokens"] > 0
        said = counted(5) + "\n\n" + counted(3)
        assert answer_in(updates) == said
        told = [MessageToDict(part)["data"] for one in updates for part in one.status_update.status.message.parts]
        assert [(one["type"], one["toolName"]) for one in told[:1]] == [("tool-call", "add_understanding")]
        assert told[1]["result"]["type"] == "understanding_updated"
        task = await client.get_task(GetTaskRequest(id=first.id))
        assert (task.status.state, answer_of(task)) == (COMPLETED, said)
        assert task.history[0].parts[0].text == request.message.parts[0].text
        assert await sent(client, request) != []  # the same message again
        listed = await client.list_tasks(ListTasksRequest(context_id=context, include_artifacts=True))
        assert [(one.id, answer_of(one)) for one in listed.tasks] == [(task.id, said)]


async def test_the_client_of_the_docs_survives_a_cut(
    api: RunningApi, recipe: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    context = new_id()
    async with agent(api, api.as_user()) as client:
        asked = asyncio.create_task(recipe.ask(client, "/stream 100 10", context))
        async with asyncio.timeout(LIMIT):
            while not (streams := list(api.app.open_streams)):
                await asyncio.sleep(0.02)
        streams[0].drop()
        task = await asyncio.wait_for(asked, LIMIT)
        assert (task.status.state, answer_of(task)) == (COMPLETED, counted(100))
        listed = await client.list_tasks(ListTasksRequest(context_id=context))
        assert listed.total_size == 1
    assert capsys.readouterr().out.rstrip("\n").rpartition("\r")[2] == counted(100)


async def test_a_task_is_subscribed_to_and_cancelled(api: RunningApi) -> None:
    mine = api.as_user()
    async with agent(api, mine, streaming=False) as client, agent(api, mine) as other:
        (begun,) = await sent(client, asking("/stream 2000 20", return_immediately=True))
        task = begun.task
        seen = asyncio.create_task(anext(aiter(other.subscribe(SubscribeToTaskRequest(id=task.id)))))
        assert (await asyncio.wait_for(seen, LIMIT)).task.id == task.id
        waiting = (await sent(client, asking("/say Later", task.context_id, return_immediately=True)))[0].task
        assert waiting.status.state == TaskState.TASK_STATE_SUBMITTED

        follows = asyncio.Event()

        async def follow() -> list[StreamResponse]:
            updates: list[StreamResponse] = []
            async for update in other.subscribe(SubscribeToTaskRequest(id=task.id)):
                updates.append(update)
                follows.set()
            return updates

        following = asyncio.create_task(follow())
        await asyncio.wait_for(follows.wait(), LIMIT)
        cancelled = await client.cancel_task(CancelTaskRequest(id=task.id))
        assert cancelled.status.state == CANCELED
        updates = await asyncio.wait_for(following, LIMIT)
        assert updates[-1].status_update.status.state == CANCELED
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))
        with pytest.raises(UnsupportedOperationError):
            await follow()
        (ended,) = (await client.list_tasks(ListTasksRequest(context_id=task.context_id, status=CANCELED))).tasks
        assert ended.id == task.id
        since = ListTasksRequest(context_id=task.context_id, status_timestamp_after=ended.status.timestamp)
        assert ended.id in [one.id for one in (await client.list_tasks(since)).tasks]
        since.status_timestamp_after.FromSeconds(since.status_timestamp_after.seconds + 3_600)
        assert (await client.list_tasks(since)).total_size == 0
        newest = await client.list_tasks(ListTasksRequest(context_id=task.context_id, page_size=1))
        assert ([one.id for one in newest.tasks], newest.total_size) == ([waiting.id], 2)
        token = newest.next_page_token
        rest = await client.list_tasks(ListTasksRequest(context_id=task.context_id, page_size=1, page_token=token))
        assert ([one.id for one in rest.tasks], rest.next_page_token) == ([task.id], "")


async def test_a_message_is_answered_whole_and_a_failure_has_its_reason(api: RunningApi) -> None:
    async with agent(api, streaming=False) as client:  # an anonymous caller
        (answered,) = await sent(client, asking("/say Hello there"))
        assert (answered.task.status.state, answer_of(answered.task)) == (COMPLETED, "Hello there")
        (failed,) = await sent(client, asking("/say Half\n/fail", answered.task.context_id, history_length=0))
        assert (failed.task.status.state, len(failed.task.history)) == (FAILED, 0)
        assert failed.task.status.message.parts[0].text
        assert failed.task.status.message.metadata["code"] == "provider_error"


async def test_a_push_says_that_a_task_has_ended(api: RunningApi) -> None:
    async with receiver() as inbox, agent(api, api.as_user(), streaming=False) as client:
        config = TaskPushNotificationConfig(url=inbox.url("/in"), token="a-token")
        config.authentication.scheme, config.authentication.credentials = "Bearer", "a secret"
        (begun,) = await sent(client, asking("/say Done", task_push_notification_config=config))
        task = begun.task
        pushed = await inbox.next(LIMIT)
        told = ParseDict(json.loads(pushed.body), StreamResponse()).task
        assert (told.id, told.context_id, told.status.state) == (task.id, task.context_id, COMPLETED)
        assert answer_of(told) == "Done"
        assert pushed.headers["x-a2a-notification-token"] == "a-token"
        assert pushed.headers["authorization"] == "Bearer a secret"
        assert "webhook-signature" not in pushed.headers

        (running,) = await sent(client, asking("/stream 2000 20", return_immediately=True))
        id = running.task.id
        made = await client.create_task_push_notification_config(
            TaskPushNotificationConfig(task_id=id, id="mine", url=inbox.url("/first"))
        )
        await client.create_task_push_notification_config(
            TaskPushNotificationConfig(task_id=id, id="mine", url=inbox.url("/second"))
        )
        await client.create_task_push_notification_config(TaskPushNotificationConfig(task_id=id, url=inbox.url("/no")))
        await client.delete_task_push_notification_config(DeleteTaskPushNotificationConfigRequest(task_id=id, id=id))
        got = await client.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=id, id="mine")
        )
        listed = await client.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(task_id=id))
        assert (made.id, got.url, list(listed.configs)) == ("mine", inbox.url("/second"), [got])
        await client.cancel_task(CancelTaskRequest(id=id))
        pushed = await inbox.next(LIMIT)
        assert (pushed.path, json.loads(pushed.body)["task"]["status"]["state"]) == ("/second", "TASK_STATE_CANCELED")
        assert inbox.waiting == 0
        late = TaskPushNotificationConfig(task_id=id, id="late", url=inbox.url("/late"))
        await client.create_task_push_notification_config(late)
        assert (await inbox.next(LIMIT)).path == "/late"


async def test_tasks_of_others_do_not_exist(api: RunningApi) -> None:
    stranger = api.as_user()
    async with (
        agent(api, api.as_user(), streaming=False) as mine,
        agent(api, stranger, streaming=False) as other,
        agent(api, stranger) as follower,
    ):
        task = (await sent(mine, asking("/stream 2000 20", return_immediately=True)))[0].task
        push = TaskPushNotificationConfig(task_id=task.id, url="https://example.com/")
        named = ListTaskPushNotificationConfigsRequest(task_id=task.id)
        for refused in (
            other.get_task(GetTaskRequest(id=task.id)),
            other.cancel_task(CancelTaskRequest(id=task.id)),
            anext(aiter(follower.subscribe(SubscribeToTaskRequest(id=task.id)))),
            other.create_task_push_notification_config(push),
            other.list_task_push_notification_configs(named),
        ):
            with pytest.raises(TaskNotFoundError):
                await refused
        with pytest.raises(InvalidParamsError):
            await other.list_tasks(ListTasksRequest(context_id=task.context_id))
        with pytest.raises(InvalidParamsError):
            await sent(other, asking("/say Mine?", task.context_id))
        await mine.cancel_task(CancelTaskRequest(id=task.id))


async def test_what_is_not_supported_is_refused_by_its_error(api: RunningApi) -> None:
    async with agent(api, api.as_user(), streaming=False) as client:
        follow_up = asking("More", new_id())
        follow_up.message.task_id = new_id()
        foreign = asking("Look", new_id())
        foreign.message.parts.append(Part(url="https://example.com/a.png", media_type="image/png"))
        private = TaskPushNotificationConfig(url="http://10.0.0.1/")
        for request, error in (
            (follow_up, UnsupportedOperationError),
            (foreign, ContentTypeNotSupportedError),
            (asking("Hello", "short"), InvalidParamsError),
            (asking(" ", new_id()), InvalidParamsError),
            (asking("Hello", task_push_notification_config=private), InvalidParamsError),
        ):
            with pytest.raises(error):
                await sent(client, request)
    async with agent(api, streaming=False) as anonymous:
        config = TaskPushNotificationConfig(url="https://example.com/")
        with pytest.raises(PushNotificationNotSupportedError):
            await sent(anonymous, asking("Hello", task_push_notification_config=config))
    async with agent(api, {"authorization": "Bearer wrong"}) as stranger:
        with pytest.raises(A2AClientError, match="HTTP Error 401"):
            await sent(stranger, asking("Hello"))


@pytest.mark.parametrize(
    ("changes", "headers", "code"),
    [
        ({"method": "message/send"}, {}, -32601),
        ({}, {"a2a-version": "0.3"}, -32009),
        ({"method": "GetExtendedAgentCard"}, {}, -32007),
        ({"method": "ListTasks"}, {}, -32602),
        ({"method": "GetExtendedAgentCard", "params": None}, {}, -32007),
        ({"params": {"id": 7}}, {}, -32602),
        ({"method": "ListTasks", "params": {"statusTimestampAfter": "0001-01-01T00:00:00+14:00"}}, {}, -32602),
        ({"method": "CreateTaskPushNotificationConfig", "params": {"taskId": "a", "url": "https://[::1"}}, {}, -32602),
        ({"method": "CreateTaskPushNotificationConfig", "params": {"taskId": "a", "url": "https://"}}, {}, -32602),
        (
            {"method": "CreateTaskPushNotificationConfig", "params": {"taskId": "a", "url": "https://2130706433"}},
            {},
            -32602,
        ),
    ],
)
async def test_a_wrong_call_is_an_error_of_json_rpc(
    api: RunningApi, changes: dict[str, Any], headers: dict[str, str], code: int
) -> None:
    body = {"jsonrpc": "2.0", "id": "a", "method": "GetTask", "params": {}} | changes
    answer = await api.http.post(PATH, json=body, headers=api.as_user() | headers)
    assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (200, "a", code)


@pytest.mark.parametrize(
    ("body", "code"),
    [("{", -32700), ("[]", -32600), ('{"jsonrpc": "1.0", "id": 1, "method": "GetTask"}', -32600),
     ('{"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": []}', -32600),
     ('{"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "\\u0000"}}', -32600)],
)  # fmt: skip
async def test_what_is_no_request_is_an_error_of_json_rpc(api: RunningApi, body: str, code: int) -> None:
    headers = api.as_user() | {"content-type": "application/json"}
    answer = await api.http.post(PATH, content=body, headers=headers)
    assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (200, None, code)


async def test_null_is_no_member_and_bytes_have_either_alphabet(api: RunningApi) -> None:
    """The JSON form of protobuf demands both: null counts as absent, and base64 may use either alphabet."""
    file = {"raw": "aGVsbG8_Pz8-", "filename": "a.txt", "mediaType": "text/plain", "text": None, "metadata": None}
    unpadded = {"raw": "aGVsbG8", "filename": "b.txt", "mediaType": "text/plain", "data": None}
    message = {"messageId": "m", "role": "ROLE_USER", "contextId": None, "taskId": None, "extensions": None}
    message["parts"] = [{"text": "/say Hello", "filename": None}, file, unpadded]
    config = {"returnImmediately": None, "historyLength": None, "taskPushNotificationConfig": None}
    for configuration in (None, config):
        params = {"message": message, "configuration": configuration, "metadata": None, "tenant": None}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
        task = (await api.http.post(PATH, json=body, headers=api.as_user())).json()["result"]["task"]
        assert task["artifacts"][0]["parts"] == [{"text": "Hello"}]
        assert [part["filename"] for part in task["history"][0]["parts"][1:]] == ["a.txt", "b.txt"]


async def test_the_card_is_a_card_of_the_protocol(api: RunningApi) -> None:
    for path in ("/.well-known/agent-card.json", f"{PATH}/.well-known/agent-card.json"):
        card = ParseDict((await api.http.get(path)).json(), AgentCard())
        assert card.supported_interfaces[0].url == f"http://127.0.0.1:{api.port}{PATH}"
        assert card.capabilities.streaming
        assert card.capabilities.push_notifications

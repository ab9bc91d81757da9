"""The API as OpenAI's own client sees it (`openai` from PyPI), as a server of chat completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionChunk

from backend.chat.flows.delete import delete_expired
from backend.chat.store import sessions, tasks
from backend.ids import TaskId
from tests.integration.running_api import LIMIT, RunningApi, new_id, new_user, running_api, token

FRONTEND_KEY = "the-frontend-key-of-the-tests"
LAST = [{"role": "user", "content": "/say Hello there"}]
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, chat_frontend_api_key=FRONTEND_KEY) as api:
        yield api


def client_of(api: RunningApi, key: str, **headers: str) -> openai.AsyncOpenAI:
    url = f"http://127.0.0.1:{api.port}/v1"
    return openai.AsyncOpenAI(api_key=key, base_url=url, default_headers=headers, max_retries=0, timeout=LIMIT)


@pytest.fixture
async def client(api: RunningApi) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(api, token(new_user())) as client:
        yield client


async def chunks_of(client: openai.AsyncOpenAI, **body: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(**{"model": "copilot", "messages": LAST, "stream": True, **body})
    async with stream:
        return [chunk async for chunk in stream]


def text_of(chunks: list[ChatCompletionChunk], name: str = "content") -> str:
    deltas = [choice.delta.model_dump() for chunk in chunks for choice in chunk.choices]
    return "".join(delta.get(name) or "" for delta in deltas)


async def test_models_are_listed_and_found_by_their_name(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["copilot"]
    assert (await client.models.retrieve("copilot")).id == "copilot"
    for unknown in ("gpt-of-another", "an-organization/its-model"):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve(unknown)
        assert caught.value.code == "model_not_found"


async def test_a_stream_has_the_chunks_of_openai(client: openai.AsyncOpenAI) -> None:
    chunks = await chunks_of(client, stream_options={"include_usage": True})
    assert text_of(chunks) == "Hello there"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert {(c.id, c.object, c.model) for c in chunks} == {(chunks[0].id, "chat.completion.chunk", "copilot")}
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in await chunks_of(client))


@pytest.mark.parametrize("text", ["the line is data: hello", 'id: 1 data: {"type":"finish"} and data: {x'])
async def test_an_answer_may_hold_the_words_of_a_frame(client: openai.AsyncOpenAI, text: str) -> None:
    asked: Any = [{"role": "user", "content": f"/say {text}"}]
    assert text_of(await chunks_of(client, messages=asked)) == text
    whole = await client.chat.completions.create(model="copilot", messages=asked)
    assert whole.choices[0].message.content == text


async def test_a_whole_answer_is_one_object(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="copilot", messages=LAST)  # type: ignore[arg-type]
    assert (whole.object, whole.choices[0].message.content) == ("chat.completion", "Hello there")
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("tools_as", "content", "reasoning"),
    [
        (None, "", '\n[add_understanding {"name":"Ada"}]\n'),
        ("reasoning", "", '\n[add_understanding {"name":"Ada"}]\n'),
        ("text", '> add_understanding {"name":"Ada"}\n\n', ""),
        ("hidden", "", ""),
    ],
)
async def test_calls_of_tools_are_shown_as_the_client_wishes(
    client: openai.AsyncOpenAI, tools_as: str | None, content: str, reasoning: str
) -> None:
    asked = [{"role": "user", "content": '/tool add_understanding {"name":"Ada"}'}]
    chunks = await chunks_of(client, messages=asked, extra_body={} if tools_as is None else {"tools_as": tools_as})
    assert text_of(chunks).startswith(content)
    assert len(text_of(chunks)) > len(content)
    assert text_of(chunks, "reasoning_content") == reasoning


async def test_reasoning_has_its_own_field(client: openai.AsyncOpenAI) -> None:
    asked: Any = [{"role": "user", "content": "/reason because of that\n/say so"}]
    whole = await client.chat.completions.create(model="copilot", messages=asked)
    message = whole.choices[0].message.model_dump()
    assert (message["reasoning_content"], message["content"]) == ("because of that", "so")


async def test_a_failed_answer_is_an_error_in_both_forms(client: openai.AsyncOpenAI) -> None:
    asked: Any = [{"role": "user", "content": "/fail"}]
    with pytest.raises(openai.APIError) as streamed:
        await chunks_of(client, messages=asked)
    with pytest.raises(openai.InternalServerError) as whole:
        await client.chat.completions.create(model="copilot", messages=asked)
    assert whole.value.status_code == 502
    assert whole.value.response.headers["x-should-retry"] == "false"
    assert streamed.value.code == whole.value.code == "provider_error"


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"model": "gpt-of-another"}, "model_not_found", 404),
        ({"messages": []}, "validation_error", 422),
        ({"messages": [{"role": "user", "content": " "}]}, "empty_message", 422),
        ({"messages": [*LAST, {"role": "assistant", "content": "Hello"}]}, "validation_error", 422),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "unsupported_part",
            422,
        ),
        ({"messages": [{"role": "user", "content": "x" * 64_001}]}, "message_too_long", 422),
        ({"messages": [{"role": "system", "content": "x" * 100_001}, *LAST]}, "message_too_long", 422),
        ({"tools": [TOOL], "tool_choice": "required"}, "unsupported_parameter", 422),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "unsupported_parameter", 422),
        ({"n": 2}, "unsupported_parameter", 422),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", 422),
        ({"tools_as": "pictures"}, "validation_error", 422),
    ],
)
async def test_a_request_that_cannot_be_carried_out_is_refused(
    api: RunningApi, change: dict[str, Any], code: str, status: int
) -> None:
    body = {"model": "copilot", "messages": LAST, "stream": True, **change}
    answer = await api.http.post("/v1/chat/completions", json=body, headers=api.as_user())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["error"]["message"]
    assert answer.json()["code"] == code


async def test_fields_with_defaults_and_fields_of_sampling_are_accepted(client: openai.AsyncOpenAI) -> None:
    harmless = {"temperature": 0.2, "max_tokens": 5, "n": 1, "tools": [], "response_format": {"type": "text"}}
    assert text_of(await chunks_of(client, user="someone", reasoning_effort="low", **harmless)) == "Hello there"
    offered = {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True}  # as Open WebUI does
    assert text_of(await chunks_of(client, extra_body=offered)) == "Hello there"
    late = [*LAST, {"role": "system", "content": "Be brief."}]
    nulls = {"stream_options": {"include_usage": None}, "extra_body": {"tools_as": None}}
    assert text_of(await chunks_of(client, messages=late, **nulls)) == "Hello there"


async def test_a_turn_is_stopped_when_its_client_disconnects(api: RunningApi) -> None:
    async with client_of(api, token(new_user())) as client:
        asked: Any = [{"role": "user", "content": "/stream 2000 20"}]
        stream = await client.chat.completions.create(model="copilot", messages=asked, stream=True)
        first = await anext(aiter(stream))
        await stream.close()
        assert await end_of(api, first.id) == "cancelled"
        whole = asyncio.create_task(client.chat.completions.create(model="copilot", messages=asked))
        await api.reading(1)
        (open_now,) = api.app.open_streams
        assert open_now.viewer is not None
        async with api.resources.database.connection() as c:
            task = await tasks.find_active_task(c, open_now.viewer.session_id)
        assert task is not None
        whole.cancel()
        await asyncio.gather(whole, return_exceptions=True)
        assert await end_of(api, task.id) == "cancelled"


async def end_of(api: RunningApi, completion: str) -> str:
    id = TaskId(completion.removeprefix("chatcmpl-"))
    async with asyncio.timeout(LIMIT):
        while True:
            async with api.resources.database.connection() as c:
                task = await tasks.get_task(c, id)
            if task.status.ended:
                return task.status.value
            await asyncio.sleep(0.02)


async def test_a_session_of_one_request_is_in_no_list_and_is_deleted_in_time(api: RunningApi) -> None:
    user = new_user()
    async with client_of(api, token(user)) as client:
        chunks = await chunks_of(client)
    listed = (await api.http.get("/api/chat/sessions", headers=api.as_user(user))).json()
    assert (listed["total"], listed["sessions"]) == (0, [])
    async with api.resources.database.connection() as c:
        task = await tasks.get_task(c, TaskId(chunks[0].id.removeprefix("chatcmpl-")))
        assert task.session_id not in await sessions.expired_sessions(c, 0, 100)  # its hour is not over
        await c.execute("UPDATE sessions SET expires_at = now() - interval '1 s' WHERE id = $1", task.session_id)
        expired = await sessions.expired_sessions(c, 0, 100)
    assert expired == [task.session_id]
    assert await delete_expired(api.resources, 0, expired) == 1
    async with api.resources.database.connection() as c:
        assert not await sessions.lock_session(c, task.session_id)


async def test_a_conversation_may_be_kept_in_a_session(api: RunningApi) -> None:
    user, session = new_user(), new_id()
    async with client_of(api, token(user), **{"X-Chat-Session-Id": session}) as client:
        for text in ("one", "two"):
            asked: Any = [{"role": "user", "content": "forgotten"}, {"role": "user", "content": f"/say {text}"}]
            key = {"Idempotency-Key": f"key-{text}"}
            for _ in range(2):  # a repeated request gets the answer that is there
                whole = await client.chat.completions.create(model="copilot", messages=asked, extra_headers=key)
                assert whole.choices[0].message.content == text
                for stream in await api.resources.redis.keys(f"*{session}*"):
                    await api.resources.redis.delete(stream)  # as if its time were over
    rows = (await api.session(session, api.as_user(user)))["messages"]
    assert [row["content"] for row in rows] == ["/say one", "one", "/say two", "two"]
    async with client_of(api, token(new_user()), **{"X-Chat-Session-Id": session}) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await chunks_of(client)
    assert caught.value.code == "session_not_found"


async def test_a_kept_turn_goes_on_without_its_client(api: RunningApi) -> None:
    async with client_of(api, token(new_user()), **{"X-Chat-Session-Id": new_id()}) as client:
        asked: Any = [{"role": "user", "content": "/stream 40 20"}]
        stream = await client.chat.completions.create(model="copilot", messages=asked, stream=True)
        first = await anext(aiter(stream))
        await stream.close()
        assert await end_of(api, first.id) == "completed"


async def test_a_frontend_with_its_key_names_the_user(api: RunningApi) -> None:
    user, session = new_user(), new_id()
    for name in ("X-OpenWebUI-User-Id", "X-Chat-User-Id"):
        async with client_of(api, FRONTEND_KEY, **{name: user, "X-Chat-Session-Id": session}) as client:
            assert text_of(await chunks_of(client)) == "Hello there"
    assert len((await api.session(session, api.as_user(user)))["messages"]) == 4
    async with client_of(api, FRONTEND_KEY) as client:
        assert text_of(await chunks_of(client)) == "Hello there"
    body = {"model": "copilot", "messages": LAST}
    for headers, status in (
        ({"authorization": f"Bearer {FRONTEND_KEY}x", "x-chat-user-id": user}, 401),
        ({"authorization": f"Bearer {FRONTEND_KEY}", "x-chat-user-id": "a b"}, 422),
        ({"authorization": f"Bearer {FRONTEND_KEY}", "x-chat-session-id": session}, 422),
    ):
        answer = await api.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]
    elsewhere = await api.http.get("/api/chat/sessions", headers={"authorization": f"Bearer {FRONTEND_KEY}"})
    assert elsewhere.status_code == 401


async def test_what_a_stopping_server_cuts_is_no_clean_end(api: RunningApi) -> None:
    async with client_of(api, token(new_user())) as client:
        asked: Any = [{"role": "user", "content": "/stream 2000 20"}]
        stream = await client.chat.completions.create(model="copilot", messages=asked, stream=True)
        await anext(aiter(stream))
        for one in list(api.app.open_streams):
            one.drop()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, openai.APIError)):
            async for _ in stream:
                pass


async def test_the_bytes_are_server_sent_events_that_end_with_done(api: RunningApi) -> None:
    body = {"model": "copilot", "messages": LAST, "stream": True}
    async with api.http.stream("POST", "/v1/chat/completions", json=body, headers=api.as_user()) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "x-vercel-ai-ui-message-stream" not in answer.headers
        frames = (await answer.aread()).split(b"\n\n")
    assert frames[0].startswith(b":")
    assert frames[-2:] == [b"data: [DONE]", b""]
    assert all(orjson.loads(frame.removeprefix(b"data: "))["choices"] is not None for frame in frames[1:-2])

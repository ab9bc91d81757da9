"""Events of AG-UI, made from the chunks of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from backend.chat.protocol.chunks import (
    Chunk,
    Data,
    ErrorChunk,
    Finish,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceUrl,
    Start,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputError,
    encode,
)
from backend.chat.protocol.renderings.ag_ui_events import ThreadRun, as_ag_ui_stream, snapshot_of
from backend.chat.protocol.sse_frames import DONE, HEARTBEAT, frame
from backend.ids import StreamId


async def rendered(chunks: Sequence[Chunk], before: Sequence[dict[str, Any]] = ()) -> list[tuple[str, dict[str, Any]]]:
    """Returns the id (or nothing) and the document of each frame."""

    async def frames() -> AsyncGenerator[bytes, None]:
        yield HEARTBEAT + b"".join(frame(StreamId(7, n), encode(chunk)) for n, chunk in enumerate(chunks, 1)) + DONE

    data = b"".join([some async for some in as_ag_ui_stream(frames(), ThreadRun("t", "r"), before)])
    found = []
    for one in data.decode().split("\n\n")[:-1]:
        head, _, body = one.partition("data: ")
        found.append((head.removeprefix("id: ").strip(), json.loads(body)))
    return found


async def events(*chunks: Chunk) -> list[dict[str, Any]]:
    return [document for _, document in await rendered(chunks)]


async def test_only_the_last_event_of_a_chunk_has_its_cursor() -> None:
    found = await rendered([Start("m"), ReasoningStart("r1"), ToolInputStart("c", "x"), ReasoningEnd("r1")])
    assert [(id, document["type"]) for id, document in found] == [
        ("7-1", "RUN_STARTED"),
        ("", "REASONING_START"), ("7-2", "REASONING_MESSAGE_START"),
        ("", "REASONING_MESSAGE_END"), ("7-4", "REASONING_END"),
    ]  # fmt: skip


async def test_reasoning_is_a_message_in_a_span() -> None:
    found = await events(ReasoningStart("r1"), ReasoningDelta("r1", "Hm"), ReasoningEnd("r1"))
    assert {document["messageId"] for document in found} == {"r1"}
    assert found[1]["role"] == "reasoning"
    assert found[2] == {"type": "REASONING_MESSAGE_CONTENT", "messageId": "r1", "delta": "Hm"}


async def test_a_call_comes_when_its_input_is_whole() -> None:
    whole = ToolInputAvailable("c", "x", {"a": "é"})
    found = await events(
        ToolInputStart("c", "x"), ToolInputDelta("c", '{"a"'), whole, ToolOutputAvailable("c", {"b": 1})
    )
    assert [document["type"] for document in found] == [
        "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT",
    ]  # fmt: skip
    assert found[0]["toolCallName"] == "x"
    assert json.loads(found[1]["delta"]) == {"a": "é"}
    assert (found[3]["toolCallId"], json.loads(found[3]["content"])) == ("c", {"b": 1})


async def test_calls_that_fail_have_their_error_as_result() -> None:
    for chunk in (ToolInputError("c", "x", None, "broken"), ToolOutputError("c", "broken")):
        last = (await events(chunk))[-1]
        assert (last["type"], last["content"]) == ("TOOL_CALL_RESULT", "broken")


async def test_data_and_sources_are_custom_events() -> None:
    found = await events(Data("progress", {"percent": 5}, id="c"), SourceUrl("s", "https://example.com"))
    assert found == [
        {"type": "CUSTOM", "name": "data-progress", "value": {"id": "c", "data": {"percent": 5}}},
        {"type": "CUSTOM", "name": "source-url", "value": {"sourceId": "s", "url": "https://example.com"}},
    ]


async def test_a_failure_ends_the_run_with_the_last_event() -> None:
    failed = Data("error", {"code": "timeout", "message": "Too slow."}), ErrorChunk("Too slow.")
    found = await events(*failed, Finish("error", {"status": "failed"}))
    assert found == [{"type": "RUN_ERROR", "message": "Too slow.", "code": "timeout"}]
    (alone,) = await events(Finish("error", {"status": "failed"}))
    assert alone["type"] == "RUN_ERROR"
    assert alone["message"]


async def test_the_end_has_outcome_and_usage() -> None:
    usage = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    (done,) = await events(Finish("stop", {"status": "completed", "usage": usage, "model": "m"}))
    assert (done["outcome"], done["usage"]) == ({"type": "success"}, [{**usage, "model": "m"}])
    (cancelled,) = await events(Finish("other", {"status": "cancelled"}))
    assert (cancelled["outcome"], "usage" in cancelled) == ({"type": "cancelled"}, False)


async def test_a_run_that_has_begun_is_not_begun_again() -> None:
    before = [ThreadRun("t", "r").started(), snapshot_of([])]
    found = [document["type"] for _, document in await rendered([Start("m"), Finish("stop", {})], before)]
    assert found == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]


def test_a_snapshot_has_calls_and_results_as_messages() -> None:
    tool = {"type": "dynamic-tool", "toolName": "x", "toolCallId": "c", "input": {"a": 1}, "state": "output-available"}
    parts: list[dict[str, Any]] = [
        {"type": "step-start"}, {"type": "reasoning", "text": "Hm"}, {"type": "text", "text": "Hello"},
        {**tool, "output": {"b": 2}}, {**tool, "toolCallId": "d", "state": "output-error", "errorText": "broken"},
        {**tool, "toolCallId": "e", "state": "input-available"},
    ]  # fmt: skip
    shown: list[dict[str, Any]] = [
        {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]},
        {"id": "msg_t", "role": "assistant", "parts": parts},
    ]
    messages = snapshot_of(shown)["messages"]
    assert [message["role"] for message in messages] == [
        "user", "reasoning", "assistant", "assistant", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert messages[0] == {"id": "m1", "role": "user", "content": "Hi"}
    assert messages[3]["toolCalls"][0]["function"] == {"name": "x", "arguments": '{"a":1}'}
    assert (messages[4]["toolCallId"], messages[4]["content"], messages[6]["content"]) == ("c", '{"b":2}', "broken")
    assert len({message["id"] for message in messages}) == len(messages)

"""Tests of rows as UI messages, which equal what the SDK assembles from the stream of the same rows."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from backend.api import export
from backend.chat.models import (
    ContextPart,
    DataPart,
    FilePart,
    Message,
    MetadataPart,
    NotePart,
    Part,
    ReasoningPart,
    Role,
    Session,
    SourcePart,
    Task,
    TaskError,
    TaskKind,
    TaskStatus,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    TurnRequest,
    Usage,
)
from backend.chat.part_json import parts_json
from backend.chat.protocol.chunks import MAX_OUTPUT_CHARS, SourceUrl, TextDelta, encode
from backend.chat.protocol.chunks_from_rows import steering_chunk, whole_message
from backend.chat.protocol.steering_messages import ui_with_steering_messages, with_steering_messages
from backend.chat.protocol.ui_messages import ui_turns
from backend.ids import FileId, SessionId, TaskId

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SESSION = SessionId("a-session-of-the-tests")


def task_named(name: str, status: TaskStatus = TaskStatus.COMPLETED) -> Task:
    return Task(
        id=TaskId(name), number=1, session_id=SESSION, user_id=None, kind=TaskKind.TURN, status=status, active=False,
        attempt=1, crashes=0, owner=None, cancel_requested=False, checkpoint=None, steps=1, request=TurnRequest("x"),
        usage=Usage(1, 2), error=None, tool_name=None, operation_id=None, created_at=NOW, started_at=NOW,
        finished_at=NOW,
    )  # fmt: skip


class Conversation:
    """The rows of a session, numbered as they are added."""

    def __init__(self) -> None:
        self.rows: list[Message] = []
        self.tasks: dict[TaskId, Task] = {}

    def add(self, task: Task, role: Role, *parts: Part, message_id: str | None = None) -> None:
        self.tasks[task.id] = task
        n = len(self.rows) + 1
        step = 0 if role is Role.USER and not self._has_rows(task) else n
        self.rows.append(Message(SESSION, n, task.id, step, role, parts, message_id, NOW))

    def _has_rows(self, task: Task) -> bool:
        return any(row.task_id == task.id for row in self.rows)

    def shown(self, silent: dict[int, Task] | None = None, *, answering_again: bool = False) -> list[Any]:
        turns = ui_turns(self.rows, self.tasks, silent or {}, answering_again=answering_again)
        return [message for turn in turns for message in turn.messages]


def test_all_rows_of_a_task_are_one_message_with_a_step_for_every_response() -> None:
    conversation, task = Conversation(), task_named("t1")
    conversation.add(task, Role.USER, ContextPart("http://x", "secret page"), TextPart("hello"), message_id="m1")
    calls = [ToolCallPart("c1", "search", {"q": 1}), ToolCallPart("c2", "search", "{broken")]
    conversation.add(task, Role.ASSISTANT, ReasoningPart("hm", signature="s"), TextPart("wait"), *calls)
    conversation.add(task, Role.TOOL, ToolResultPart("c1", "search", {"type": "no_results", "message": "none"}))
    conversation.add(task, Role.TOOL, ToolResultPart("c2", "search", {"message": "not JSON"}, is_error=True))
    sources = [SourcePart("s1", "https://a.b/", "A page"), SourcePart("s2", "https://c.d/")]
    conversation.add(task, Role.ASSISTANT, TextPart("done"), *sources)
    question, answer = conversation.shown()
    assert question == {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
    assert (answer["id"], answer["role"]) == ("msg_t1", "assistant")
    call = {"type": "dynamic-tool", "toolName": "search", "providerExecuted": True}
    assert answer["parts"] == [
        {"type": "step-start"},
        {"type": "reasoning", "text": "hm", "state": "done"},
        {"type": "text", "text": "wait", "state": "done"},
        {**call, "toolCallId": "c1", "state": "output-available", "input": {"q": 1},
         "output": {"type": "no_results", "message": "none"}},
        {**call, "toolCallId": "c2", "state": "output-error", "input": "{broken", "errorText": "not JSON"},
        {"type": "step-start"},
        {"type": "text", "text": "done", "state": "done"},
        {"type": "source-url", "sourceId": "s1", "url": "https://a.b/", "title": "A page"},
        {"type": "source-url", "sourceId": "s2", "url": "https://c.d/"},
    ]  # fmt: skip
    assert answer["metadata"]["status"] == "completed"
    assert answer["metadata"]["usage"]["totalTokens"] == 3


def test_a_stream_made_from_rows_names_the_sources_of_the_history() -> None:
    conversation, task = Conversation(), task_named("t1")
    conversation.add(
        task,
        Role.ASSISTANT,
        TextPart("done"),
        SourcePart("s1", "https://a.b/", "A page"),
        SourcePart("s2", "http://c.d/"),
    )
    (answer,) = conversation.shown()
    streamed = [
        json.loads(encode(chunk)) for chunk in whole_message(task, conversation.rows) if isinstance(chunk, SourceUrl)
    ]
    assert streamed == answer["parts"][2:] == parts_json(conversation.rows[0].parts)[1:]
    assert [source["url"] for source in streamed] == ["https://a.b/", "http://c.d/"]


def test_a_task_that_failed_without_an_answer_shows_its_error() -> None:
    conversation = Conversation()
    failed = replace(task_named("t1", TaskStatus.FAILED), error=TaskError("provider_error", "It could not answer."))
    conversation.add(failed, Role.USER, TextPart("hello"))
    question, answer = conversation.shown()
    assert question["id"] == "usr_t1"
    assert answer["parts"] == [
        {"type": "data-error", "data": {"code": "provider_error", "message": "It could not answer."}}
    ]
    assert answer["metadata"]["status"] == "failed"


def test_a_message_with_nothing_to_show_is_left_out() -> None:
    conversation = Conversation()
    conversation.add(task_named("t1"), Role.USER, ContextPart(None, "a note of a service"))
    conversation.add(task_named("t2", TaskStatus.CANCELLED), Role.USER, TextPart("never mind"))
    conversation.add(task_named("t3", TaskStatus.RUNNING), Role.USER, TextPart("now"))
    assert [one["id"] for one in conversation.shown()] == ["usr_t2", "usr_t3"]


def test_a_call_without_a_result_is_still_open_and_redacted_reasoning_is_hidden() -> None:
    conversation = Conversation()
    conversation.add(
        task_named("t1"), Role.ASSISTANT, ReasoningPart("", redacted="xx"), ToolCallPart("c1", "build", {})
    )
    (answer,) = conversation.shown()
    assert [part["type"] for part in answer["parts"]] == ["step-start", "dynamic-tool"]
    assert answer["parts"][1]["state"] == "input-available"
    assert "output" not in answer["parts"][1]


def test_a_long_output_is_cut_as_in_the_stream() -> None:
    conversation, output = Conversation(), {"type": "doc_page", "message": "m", "content": "x" * 2 * MAX_OUTPUT_CHARS}
    conversation.add(task_named("t1"), Role.ASSISTANT, ToolCallPart("c1", "get", {}))
    conversation.add(task_named("t1"), Role.TOOL, ToolResultPart("c1", "get", output))
    (answer,) = conversation.shown()
    shown = answer["parts"][1]["output"]
    assert shown["type"] == "doc_page"
    assert len(str(shown)) < 1.2 * MAX_OUTPUT_CHARS


def failed_task(name: str) -> Task:
    return replace(task_named(name, TaskStatus.FAILED), error=TaskError("provider_error", f"{name} failed."))


def test_a_failure_is_hidden_once_the_question_is_answered_again() -> None:
    conversation = Conversation()
    conversation.add(failed_task("t1"), Role.USER, TextPart("hello"), message_id="m1")
    assert [one["id"] for one in conversation.shown()] == ["m1", "msg_t1"]
    assert [one["id"] for one in conversation.shown(answering_again=True)] == ["m1"]
    conversation.add(task_named("t2"), Role.ASSISTANT, TextPart("good"))
    assert [one["id"] for one in conversation.shown()] == ["m1", "msg_t2"]


def test_the_newest_answer_to_a_question_is_shown_even_if_it_is_only_an_error() -> None:
    conversation = Conversation()
    # the answer of t1 was superseded
    conversation.add(task_named("t1"), Role.USER, TextPart("hello"), message_id="m1")
    conversation.add(failed_task("t3"), Role.USER, TextPart("and"), message_id="m2")
    silent = {1: failed_task("t2"), 2: task_named("t4", TaskStatus.CANCELLED)}
    shown = conversation.shown(silent)
    assert [one["id"] for one in shown] == ["m1", "msg_t2", "m2"]
    assert shown[1]["parts"] == [{"type": "data-error", "data": {"code": "provider_error", "message": "t2 failed."}}]


def test_a_message_that_a_turn_took_in_is_shown_between_its_steps_as_the_stream_shows_it() -> None:
    conversation, task = Conversation(), task_named("t1")
    conversation.add(task, Role.USER, TextPart("hello"), message_id="m1")
    conversation.add(task, Role.ASSISTANT, ToolCallPart("c1", "search", {}))
    conversation.add(task, Role.TOOL, ToolResultPart("c1", "search", {"type": "no_results", "message": "none"}))
    data = DataPart("mood", "good")
    conversation.add(task, Role.USER, TextPart("faster"), data, MetadataPart({"a": 1}), message_id="s1")
    conversation.add(task, Role.USER, NotePart("of a service"), message_id="s2")
    conversation.add(task, Role.ASSISTANT, TextPart("done"))
    question, answer = conversation.shown()
    parts = [{"type": "text", "text": "faster"}, {"type": "data-mood", "data": "good"}]
    said = {"id": "s1", "role": "user", "parts": parts, "metadata": {"a": 1}}
    assert question["id"] == "m1"
    kinds = ["step-start", "dynamic-tool", "data-steering", "step-start", "text"]
    assert [part["type"] for part in answer["parts"]] == kinds
    assert answer["parts"][2] == {"type": "data-steering", "id": "s1", "data": said}
    chunks = whole_message(task, conversation.rows)
    order = ["start", "start-step", "tool-input-available", "tool-output-available", "finish-step", "data-steering"]
    assert [chunk.type for chunk in chunks] == [
        *order, "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish",
    ]  # fmt: skip
    native = ui_with_steering_messages([answer])[0]["parts"][2]
    assert native == {"type": "steering-message", "id": "s1", "parts": parts[:1]}


def test_a_file_of_a_message_that_a_turn_took_in_is_shown_with_its_link() -> None:
    conversation, task = Conversation(), task_named("t1")
    picture = FilePart(FileId("f" * 32), "image/png", "a.png", 12)
    conversation.add(task, Role.USER, TextPart("hello"), message_id="m1")
    conversation.add(task, Role.ASSISTANT, TextPart("one"))
    conversation.add(task, Role.USER, picture, message_id="s1")
    _, answer = ui_turns(conversation.rows, {task.id: task}, links={picture.file_id: "/link"})[0].messages
    (shown,) = answer["parts"][2]["data"]["parts"]
    assert (shown["url"], shown["filename"]) == (picture.url, "a.png")
    assert shown["providerMetadata"]["copilot"]["link"] == "/link"
    (native,) = ui_with_steering_messages([answer])[0]["parts"][2]["parts"]
    assert native == shown
    assert list(export.blocks_of(answer)) == ["one", "> **You:**\n> File: a.png"]


def test_markdown_tells_a_result_of_a_tool_once() -> None:
    def called(told: str) -> dict[str, Any]:
        output = {"message": told}
        return {"type": "dynamic-tool", "toolName": "t", "state": "output-available", "output": output}

    def of(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
        return {"id": role, "role": role, "parts": list(parts)}

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": words}

    messages = [
        of("user", text("Found 15.")),
        of("assistant", called("Found  15."), called("Saved it."), called("5")),
        of("assistant", text("The tool answered: Found 15. It is 15")),
        of("user", text("again")),
        of("assistant", called("Found 15."), called(" ")),
    ]
    session = Session(SESSION, None, None, {}, NOW, NOW)
    lines = [line for line in export.as_markdown(session, messages).decode().split("\n") if line.startswith("*")]
    done, told = "*Tool t: done*", "*Tool t: Found 15.*"
    assert lines == [done, "*Tool t: Saved it.*", "*Tool t: 5*", told, done]


async def test_a_client_that_asks_for_steering_messages_gets_each_once() -> None:
    task = task_named("t1")
    row = Message(SESSION, 2, task.id, 1, Role.USER, (TextPart('say {"type":"data-steering"'),), "s1", NOW)
    steered = b"id: 7-3\ndata: " + encode(steering_chunk(row)) + b"\n\n"
    plain = b"id: 7-2\ndata: " + encode(TextDelta("t", 'data: {"type":"data-steering"')) + b"\n\n"

    async def blocks() -> AsyncGenerator[bytes, None]:
        yield plain + steered
        yield b": keep-alive\n\n" + steered + plain

    first, second = [block async for block in with_steering_messages(blocks())]
    assert first.startswith(plain + b'id: 7-3\ndata: {"type":"steering-message","id":"s1","parts":[{"type":"text"')
    assert second == b": keep-alive\n\n" + plain

"""The pages that tools have read become sources of the answer after them."""

from __future__ import annotations

from typing import Any

from backend.chat.models import Message, NewMessage, Role, SourcePart, TextPart, ToolCallPart, ToolResultPart, Usage
from executor.agent.pages_read import pages_read
from executor.agent.response import Response
from executor.llm import events
from executor.llm.events import Source


def result(url: Any, name: str = "web_fetch", status: Any = 200, **output: Any) -> NewMessage:
    document = {"type": "web_fetch", "url": url, "status_code": status, "content": "x", **output}
    return NewMessage(Role.TOOL, (ToolResultPart("call", name, document),))


CALL = NewMessage(Role.ASSISTANT, (ToolCallPart("call", "web_fetch", {"url": "https://a.example/"}),))


def test_pages_of_the_last_step_are_found_in_order() -> None:
    rows: list[Message | NewMessage] = [
        CALL,
        result("https://old.example/"),
        CALL,
        result("https://a.example/", title="A"),
        result("https://b.example/"),
    ]
    assert list(pages_read(rows)) == [Source("https://a.example/", "A"), Source("https://b.example/", None)]
    steer = NewMessage(Role.USER, (TextPart("Read more."),))
    assert len(list(pages_read([*rows, steer]))) == 2
    assert list(pages_read([*rows, CALL])) == []
    assert list(pages_read([])) == []


def test_other_results_are_no_sources() -> None:
    rows = [
        result("https://a.example/", status=404), result("javascript:1"), result(3),
        result("https://a.example/", "other"), result("https://a.example/", status=None),
        result("https://a.example/", type="error"),
        NewMessage(Role.TOOL, (ToolResultPart("call", "web_fetch", "text"),)),
    ]  # fmt: skip
    assert list(pages_read([CALL, *rows])) == []


def test_an_answer_names_them_once_with_those_of_the_model() -> None:
    cited = {"https://known.example/"}
    read = [Source("https://a.example/", "A"), Source("https://known.example/", None)]
    response = Response("1", cited, None, read)
    chunks = [
        chunk
        for event in (
            events.UsageSoFar(Usage()),
            events.TextDelta("words"),
            events.Source("https://b.example/", None),
            events.Source("https://a.example/", "again"),
            events.Finished("stop", Usage()),
        )
        for chunk in response.take(event)
    ]
    assert [chunk.url for chunk in chunks if chunk.type == "source-url"] == ["https://a.example/", "https://b.example/"]
    message = response.message()
    assert message is not None
    assert isinstance(message.parts[0], TextPart)
    assert [part.title for part in message.parts if isinstance(part, SourcePart)] == ["A", None]


def test_an_empty_answer_has_none() -> None:
    response = Response("1", set(), None, [Source("https://a.example/", "A")])
    assert not [chunk for chunk in response.take(events.Finished("stop", Usage())) if chunk.type == "source-url"]
    assert response.message() is None

"""Results of calls that are not valid, but mean something."""

from __future__ import annotations

from typing import Any

import mcp_types
import orjson
import pytest
from mcp import MCPError
from mcp_types import JSONRPCResponse, TextContent

from executor.mcp.link import words_of_error
from executor.mcp.messages import decode
from executor.mcp.outputs import response_of

HELLO = {"type": "text", "text": "hello"}
PICTURE = "iVBORw0KGgo="


def outputs_of(result: Any) -> Any:
    """Returns the outputs and the content of the response for a result, as it arrives in the protocol of 2025-11-25."""
    [answer] = decode(orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": result}), {1})
    assert isinstance(answer, JSONRPCResponse)
    assert isinstance(answer.result.get("structuredContent") or {}, dict), "the protocol has only objects there"
    read = mcp_types.CallToolResult.model_validate(answer.result, by_name=False)
    return response_of(read, "s.t", "t", None).model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello", "hello"), (HELLO, "hello"), (["hello"], "hello"), ([None, HELLO], "hello"),
        ([{"type": "text", "text": 5}], "5"), ([{"type": "text", "text": {"a": 1}}], '{"a":1}'),
        ([{**HELLO, "annotations": {"audience": ["robot"], "priority": 7}, "_meta": []}], "hello"),
        ([{"type": "video", "url": "https://x.example/v"}], '{"type":"video","url":"https://x.example/v"}'),
        ([{"type": "image"}], '{"type":"image"}'), ([{"text": "no type"}], '{"text":"no type"}'),
    ],
)  # fmt: skip
def test_a_part_that_is_not_valid_reaches_the_model_as_text(content: Any, text: str) -> None:
    assert outputs_of({"content": content})["outputs"] == [{"type": "text", "text": text}]


def test_structured_content_is_enough_and_may_be_anything() -> None:
    assert outputs_of({"structuredContent": {"a": 1}})["outputs"] == {"a": 1}
    assert outputs_of({"content": None, "structuredContent": {"a": 1}, "isError": None})["outputs"] == {"a": 1}
    assert outputs_of({"content": ["[1, 2]"], "structuredContent": [1, 2]})["outputs"] == {"result": [1, 2]}
    assert outputs_of({"toolResult": {"a": 1}})["outputs"] == {"a": 1}


def test_files_and_links_keep_their_meaning() -> None:
    [one, two, three, four] = outputs_of(
        {
            "content": [
                {"type": "image", "data": f"data:image/png;base64,{PICTURE}", "mime_type": "image/png"},
                {"type": "audio", "data": "YQ=="},
                {"type": "resource", "resource": {"text": "inside"}},
                {"type": "resource_link", "uri": "x://y", "size": "large", "title": "Why"},
            ]
        }
    )["outputs"]
    assert (one["mime_type"], one["data"]) == ("image/png", PICTURE)
    assert (two["type"], two["mime_type"]) == ("audio", "application/octet-stream")
    assert three["text"] == "inside"
    assert (four["uri"], four["name"]) == ("x://y", "Why")


@pytest.mark.parametrize("failed", [True, "true", 1])
def test_an_error_is_one_in_any_spelling(failed: Any) -> None:
    assert outputs_of({"content": [HELLO], "isError": failed})["message"] == "hello"


def test_other_results_stay_as_they_are() -> None:
    for result in ({}, {"tools": []}, {"contents": "x"}, {"resultType": "input_required", "inputRequests": {}}):
        [answer] = decode(orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": result}), {1})
        assert isinstance(answer, JSONRPCResponse)
        assert answer.result == result


def test_a_byte_order_mark_is_no_part_of_an_answer() -> None:
    line = b"\xef\xbb\xbf" + orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [HELLO]}})
    assert len(decode(line, {1})) == 1


@pytest.mark.parametrize(
    ("message", "data", "said"),
    [
        ("Internal error", {"detail": "disk full"}, 'Internal error: {"detail":"disk full"}'),
        ("Internal error", "disk full", "Internal error: disk full"),
        ("disk full", "disk full", "disk full"), ("no", None, "no"), ("", None, "The server answered with an error."),
        ("no", {"data": "A" * 4_000, "mimeType": "x/y"}, 'no: {"left_out":"about 3000 bytes","mimeType":"x/y"}'),
    ],
)  # fmt: skip
def test_the_data_of_an_error_is_told_beside_its_message(message: str, data: Any, said: str) -> None:
    assert words_of_error(MCPError(-32603, message, data)) == said


def test_text_content_is_not_touched() -> None:
    [answer] = decode(orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [HELLO]}}), {1})
    assert isinstance(answer, JSONRPCResponse)
    read = mcp_types.CallToolResult.model_validate(answer.result, by_name=False)
    assert read.content == [TextContent(text="hello")]

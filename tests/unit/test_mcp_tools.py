"""Tests of MCP tools as the model sees them: every provider takes their names and schemas, and answers can be kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import mcp_types
import pytest
from pydantic import SecretStr

from backend.chat.protocol.tool_responses import BlockList, BlockOutput, ErrorResponse, ToolResponse
from backend.ids import SessionId, TaskId
from backend.postgres import Database
from executor.agent.calls import UNKNOWN_EFFECT
from executor.mcp.failures import CallRefused, ServerLost, ServerUnavailable
from executor.mcp.outputs import MAX_ERROR_CHARS, MAX_INLINE_CHARS, MAX_OUTPUT_BYTES, response_of
from executor.mcp.schemas import MAX_SCHEMA_BYTES, InputSchema
from executor.mcp.server_entry import StdioServer
from executor.mcp.tool import MAX_DESCRIPTION_CHARS, Caller, McpTool, offered_tools, unknown_tool
from executor.operations import Operations
from executor.tools.context import ToolContext
from executor.tools.tool import MOST_TOOLS, Tool, Toolbox

SERVER = StdioServer(name="my-server", command="x")
OBJECT: dict[str, Any] = {"type": "object", "properties": {}}
CONTEXT = ToolContext(
    SessionId("s" * 16), TaskId("t"), "call", None, cast(Database, None), cast(Operations, None)
)  # unused


async def nobody(tool: str, arguments: dict[str, Any], caller: Caller) -> mcp_types.CallToolResult:
    raise ServerUnavailable


def told(name: str, **more: Any) -> mcp_types.Tool:
    return mcp_types.Tool(name=name, **{"input_schema": OBJECT, **more})


def offered(*tools: mcp_types.Tool, server: StdioServer = SERVER) -> dict[str, McpTool]:
    return offered_tools(tools, server, nobody).tools


def answered(*content: mcp_types.ContentBlock, **more: Any) -> ToolResponse:
    result = mcp_types.CallToolResult(content=list(content), **more)
    return response_of(result, "server.tool", "A tool", "s" * 16)


def text(words: str) -> mcp_types.TextContent:
    return mcp_types.TextContent(text=words)


def test_names_are_those_that_every_provider_takes_and_no_two_are_alike() -> None:
    tools = offered(told("add"), told("a.b"), told("a b"), told("a_b"), told("x" * 80), told("x" * 81), told("日本"))
    assert len(tools) == 7
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in tools)
    assert all(name.startswith("my-server_") and name == tool.name == tool.spec.name for name, tool in tools.items())
    assert "my-server_add" in tools


def test_a_name_does_not_depend_on_the_order_of_the_list() -> None:
    one, other = [told("a.b"), told("a_b"), told("x" * 80)], [told("x" * 80), told("a_b"), told("a.b")]
    assert set(offered(*one)) == set(offered(*other))


def test_a_schema_is_passed_on_but_for_what_a_provider_would_refuse_the_prompt_for() -> None:
    schema = {"$schema": "x", "properties": {"a": {"anyOf": [{}]}}, "anyOf": [{}], "required": ["a"], "x-more": 1}
    (tool,) = offered(told("t", input_schema=schema)).values()
    assert tool.spec.parameters == {
        "type": "object", "properties": {"a": {"anyOf": [{}]}}, "required": ["a"], "x-more": 1,
    }  # fmt: skip


@pytest.mark.parametrize("bad", [{"enum": ["x" * MAX_SCHEMA_BYTES]}, {"default": 2**70}, {"const": "\ud800"}])
def test_a_schema_that_cannot_be_sent_costs_its_tool_alone(bad: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"a": bad}}
    offered_now = offered_tools([told("bad", input_schema=schema), told("good")], SERVER, nobody)
    assert list(offered_now.tools) == ["my-server_good"]
    assert list(offered_now.left_out) == ["bad"]


def test_descriptions_are_bounded_and_a_title_stands_in_for_one() -> None:
    long, titled, bare = offered(
        told("long", description="x" * 10_000), told("titled", title="A title"), told("bare")
    ).values()
    assert len(long.description) == MAX_DESCRIPTION_CHARS
    assert (titled.description, bare.description) == ("A title", "bare")


def test_a_call_may_be_repeated_when_the_server_or_the_file_says_so() -> None:
    server = StdioServer(name="s", command="x", idempotent=frozenset({"c"}), operations=frozenset({"d"}))
    a, b, c, d = offered(
        told("a", annotations=mcp_types.ToolAnnotations(idempotent_hint=True)),
        told("b", annotations=mcp_types.ToolAnnotations(read_only_hint=True)),
        told("c"),
        told("d", annotations=mcp_types.ToolAnnotations(idempotent_hint=False)),
        server=server,
    ).values()
    assert [tool.idempotent for tool in (a, b, c, d)] == [True, True, True, False]
    assert [tool.long_running for tool in (a, b, c, d)] == [False, False, False, True]


def test_a_server_that_never_connected_is_taken_to_have_any_tool_with_its_prefix() -> None:
    tool = unknown_tool("my-server_anything", SERVER, nobody)
    assert tool is not None
    assert (tool.name, tool.idempotent) == ("my-server_anything", False)
    assert unknown_tool("my-server_", SERVER, nobody) is None
    assert unknown_tool("other_anything", SERVER, nobody) is None


def test_a_server_that_never_connected_has_only_the_tools_that_the_file_offers() -> None:
    some = StdioServer(
        name="my-server", command="x", tools=frozenset({"read.text", "add"}), excluded=frozenset({"add"})
    )
    (name,) = (
        name for name in ("my-server_read_text", "my-server_add", "my-server_x") if unknown_tool(name, some, nobody)
    )
    assert name == "my-server_read_text"
    but_one = StdioServer(name="my-server", command="x", excluded=frozenset({"drop.all"}))
    assert unknown_tool("my-server_drop_all", but_one, nobody) is None
    assert unknown_tool("my-server_read", but_one, nobody) is not None


@pytest.mark.parametrize("error", [ValueError, RecursionError])
def test_a_tool_whose_schema_cannot_be_read_is_left_out_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(schema: Any) -> InputSchema:
        if "bad" in schema["properties"]:
            raise error
        return InputSchema(schema, {})

    monkeypatch.setattr("executor.mcp.tool.input_schema", read)
    bad = told("bad", input_schema={"type": "object", "properties": {"bad": {}}})
    found = offered_tools([bad, told("good")], SERVER, nobody)
    assert (list(found.tools), list(found.left_out)) == (["my-server_good"], ["bad"])


@pytest.mark.parametrize(
    ("failure", "idempotent", "code"),
    [
        (ServerUnavailable(), False, "tool_unavailable"),
        (ServerLost(), False, UNKNOWN_EFFECT),
        (ServerLost(), True, "tool_unavailable"),
        (CallRefused("no such city"), False, "tool_failed"),
    ],
)
async def test_a_call_without_a_result_is_an_error_that_the_model_sees(
    failure: Exception, idempotent: bool, code: str
) -> None:
    async def fails(tool: str, arguments: dict[str, Any], caller: Caller) -> mcp_types.CallToolResult:
        raise failure

    server = StdioServer(name="s", command="x", idempotent=frozenset({"t"} if idempotent else ()))
    (tool,) = offered_tools([told("t")], server, fails).tools.values()
    response = await tool.run(tool.input_type.model_validate({}), CONTEXT)
    assert isinstance(response, ErrorResponse)
    assert response.error == code
    assert response.message


@pytest.mark.parametrize("repeated", ['{"a":  7}', "7"])
def test_a_text_that_repeats_the_structured_content_is_left_out(repeated: str) -> None:
    response = answered(text(repeated), structured_content={"a": 7})
    assert response == BlockOutput(
        message="server.tool has answered.", session_id="s" * 16, block_id="server.tool", block_name="A tool",
        outputs={"a": 7},
    )  # fmt: skip


def test_structured_content_and_what_stands_beside_it_both_reach_the_model() -> None:
    link = mcp_types.ResourceLink(uri="https://example.org/chart", name="chart")
    image = mcp_types.ImageContent(data="AAAA", mime_type="image/png")
    response = answered(text("Saved the chart."), link, image, structured_content={"id": 9})
    assert isinstance(response, BlockOutput)
    assert response.outputs == {"id": 9}
    assert [part["type"] for part in response.content or ()] == ["text", "resource_link", "image"]


def test_every_kind_of_part_is_kept_and_long_files_are_left_out() -> None:
    long = "A" * (MAX_INLINE_CHARS + 4)
    file = mcp_types.BlobResourceContents(uri="file:///a", blob=long)
    page = mcp_types.TextResourceContents(uri="file:///b", text="words", mime_type="text/plain")
    response = answered(
        mcp_types.AudioContent(data="AAAA", mime_type="audio/wav"),
        mcp_types.ImageContent(data=long, mime_type="image/png"),
        mcp_types.EmbeddedResource(resource=file),
        mcp_types.EmbeddedResource(resource=page),
        mcp_types.ResourceLink(uri="file:///c", name="c"),
    )
    assert isinstance(response, BlockOutput)
    assert response.outputs == [
        {"type": "audio", "mime_type": "audio/wav", "data": "AAAA"},
        {"type": "image", "mime_type": "image/png", "left_out": "about 12291 bytes"},
        {"type": "resource", "uri": "file:///a", "mime_type": None, "left_out": "about 12291 bytes"},
        {"type": "resource", "uri": "file:///b", "mime_type": "text/plain", "text": "words"},
        {"type": "resource_link", "uri": "file:///c", "name": "c", "description": None, "mime_type": None},
    ]


@pytest.mark.parametrize(
    ("outputs", "code"),
    [
        ({"a": "x" * MAX_OUTPUT_BYTES}, "output_too_large"),
        ({"a": 2**70}, "tool_failed"),
        ({"a": "\ud800"}, "tool_failed"),
    ],
)
def test_outputs_that_cannot_be_kept_are_refused(outputs: Mapping[str, Any], code: str) -> None:
    response = answered(structured_content=outputs)
    assert isinstance(response, ErrorResponse)
    assert response.error == code


def test_what_a_tool_says_of_its_failure_is_bounded() -> None:
    response = answered(text("x" * 10_000), text("y"), is_error=True)
    assert isinstance(response, ErrorResponse)
    assert (response.error, response.message) == ("tool_failed", "x" * MAX_ERROR_CHARS)
    assert answered(is_error=True).message == "server.tool failed."


class Source:
    """Tools that are there, and tools that are known."""

    instructions = None

    def __init__(self, there: Mapping[str, McpTool], known: Mapping[str, McpTool]) -> None:
        self.tools = there
        self._known = known

    def find(self, name: str) -> Tool[Any] | None:
        return self._known.get(name)


def test_the_toolbox_offers_what_is_there_now_and_finds_what_is_known() -> None:
    tools = offered(told("a"), told("b"))
    source = Source({}, tools)
    toolbox = Toolbox([], [source])
    assert toolbox.specs == []
    assert toolbox.find("my-server_a") is tools["my-server_a"]
    source.tools = tools
    assert [spec.name for spec in toolbox.specs] == ["my-server_a", "my-server_b"]


def test_of_two_tools_with_one_name_our_own_is_taken_before_the_available_one() -> None:
    ours, away, there = (offered(told("a"))["my-server_a"] for _ in range(3))
    sources = [Source({}, {"my-server_a": away}), Source({"my-server_a": there}, {"my-server_a": there})]
    assert Toolbox([ours], sources).find("my-server_a") is ours
    assert Toolbox([], sources).find("my-server_a") is there
    assert len(Toolbox([ours], sources).specs) == 1


def many(letter: str, number: int) -> Source:
    tools = offered(*(told(f"{letter}{one}", description=f"Makes {letter}{one} blue.") for one in range(number)))
    return Source(tools, tools)


def test_a_prompt_has_no_more_tools_than_a_provider_takes_and_servers_share_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sources = [many("t", 200), many("u", 100), many("v", 5)]
    toolbox = Toolbox([], sources)
    names = [spec.name for spec in toolbox.specs]
    assert len(names) == MOST_TOOLS
    shares = [sum(name.startswith(f"my-server_{letter}") for name in names) for letter in "tuv"]
    assert sum(shares) == MOST_TOOLS - 2
    assert shares[2] == 5
    assert abs(shares[0] - shares[1]) <= 1
    assert [toolbox.left_out(source) for source in sources] == [200 - shares[0], 100 - shares[1], 0]
    (record,) = [record for record in caplog.records if record.message == "tools have no room in a prompt"]
    assert vars(record)["number"] == 300 - shares[0] - shares[1]


async def test_a_model_finds_and_calls_the_tools_that_have_no_room() -> None:
    toolbox = Toolbox([], [many("t", 200)])
    search = toolbox.find("search_tools")
    assert search is not None
    response = await search.run(search.input_type.model_validate({"query": "t199 blue"}), CONTEXT)
    assert isinstance(response, BlockList)
    assert response.blocks[0]["name"] == "my-server_t199"
    tool, arguments = toolbox.resolve("call_tool", {"name": "my-server_t199", "arguments": {"a": 1}})
    assert tool is toolbox.find("my-server_t199")
    assert arguments == {"a": 1}
    tool, _ = toolbox.resolve("call_tool", {"name": "nothing"})
    assert tool is not None
    assert tool.name == "call_tool"


def test_a_prompt_with_room_for_all_has_no_tools_to_find_others() -> None:
    names = {spec.name for spec in Toolbox([], [many("t", MOST_TOOLS)]).specs}
    assert len(names) == MOST_TOOLS
    assert "search_tools" not in names


async def test_an_error_shows_what_the_model_needs_and_no_secret() -> None:
    async def fails(tool: str, arguments: dict[str, Any], caller: Caller) -> mcp_types.CallToolResult:
        return mcp_types.CallToolResult(content=[text("t0ken-1 may not read outside of /srv/shared")], is_error=True)

    env = {"API_TOKEN": SecretStr("t0ken-1"), "FOLDER": SecretStr("/srv/shared")}
    server = StdioServer(name="my-server", command="x", args=("/srv/shared", "read"), env=env)
    (tool,) = offered_tools([told("t")], server, fails).tools.values()
    response = await tool.run(tool.input_type.model_validate({}), CONTEXT)
    assert response.message == "[hidden] may not read outside of /srv/shared"

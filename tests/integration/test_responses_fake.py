"""The fake of OpenAI's Responses API is honest: its shapes are those of the real SDK, which reads its stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, get_type_hints

import pytest

from tests.fakes.responses_refusals import (
    FOLLOWERS,
    ITEMS,
    PARAMETERS,
    REASONING,
    REQUIRED,
    TOOL,
    encrypted,
    refusal_of,
)
from tests.fakes.running import fake_server

BODY: dict[str, Any] = {
    "model": "m", "stream": True, "store": False, "include": ["reasoning.encrypted_content"],
    "reasoning": {"summary": "auto"},
}  # fmt: skip
TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}]


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    async with fake_server("responses") as url:
        yield url


def test_the_fake_knows_the_parameters_of_the_sdk() -> None:
    from openai.types import responses as types  # imported by the worker that runs these tests
    from openai.types.responses import response_create_params, response_input_param
    from openai.types.shared_params import Reasoning

    def names(kind: Any) -> set[str]:
        return set(get_type_hints(kind))

    def required(kind: Any) -> set[str]:
        return set(kind.__required_keys__) - {"type"}

    assert names(response_create_params.ResponseCreateParamsStreaming) == PARAMETERS
    assert names(Reasoning) == REASONING
    assert names(types.FunctionToolParam) == TOOL
    params = {
        "message": types.EasyInputMessageParam,
        "reasoning": types.ResponseReasoningItemParam,
        "function_call": types.ResponseFunctionToolCallParam,
        "function_call_output": response_input_param.FunctionCallOutput,
    }
    for kind, param in params.items():
        assert names(param) == ITEMS[kind], kind
        assert required(param) <= set(REQUIRED[kind]), kind


SCRIPTS = {
    "text": "/say Hello there",
    "reasoning": "/think I must think\n/say Done",
    "silent reasoning": "/quirk silent\n/think Hm\n/say Done",
    "calls": '/think Hm\n/say Looking\n/tool look {"at":"x"}\n/tool look {"at":"y"}',
    "reasoning between calls": '/quirk between\n/think Hm\n/tool look {"at":"x"}\n/tool look {"at":"y"}',
    "pages": '/say First.\n/cite {"url":"https://a.b/","title":"A"}',
    "refusal": "/finish refusal I will not",
    "too long": "/say Well\n/finish max_output_tokens",
    "failed": "/say Well\n/error failed-server_error",
    "an error": "/say Well\n/error overloaded",
    "phases": "/quirk phases\n/say Done",
    "without deltas": '/quirk no-deltas\n/think Hm\n/say Done\n/tool look {"at":"x"}',
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_every_event_has_the_shape_that_the_sdk_gives_it(url: str, script: str) -> None:
    import openai
    from openai.types.responses import ResponseStreamEvent
    from pydantic import TypeAdapter

    adapter = TypeAdapter[Any](ResponseStreamEvent)
    body = {**BODY, "input": [{"role": "user", "content": SCRIPTS[script]}], "tools": TOOLS}
    async with (
        openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
        client.responses.with_streaming_response.create(**body) as response,
    ):
        lines = [line async for line in response.iter_lines()]
    documents = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    for document in documents:
        adapter.validate_python(document)
    assert [document["type"] for document in documents] == names
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))


async def test_the_client_of_the_sdk_puts_an_answer_together(url: str) -> None:
    import openai

    async with openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        asked: list[Any] = [{"role": "user", "content": SCRIPTS["calls"]}]
        given = {name: value for name, value in BODY.items() if name != "stream"}
        async with client.responses.stream(**given, input=asked, tools=TOOLS) as stream:
            async for _ in stream:
                pass
            answer = await stream.get_final_response()
        assert answer.output_text == "Looking"
        assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
        assert answer.output[0].encrypted_content  # type: ignore[union-attr]
        asked += [
            item.model_dump(exclude_none=True, exclude={"parsed_arguments"})
            for item in answer.output
            if item.type != "message"
        ]
        asked.insert(2, {"role": "assistant", "content": "Looking"})
        outputs = [item for item in answer.output if item.type == "function_call"]
        asked += [{"type": "function_call_output", "call_id": item.call_id, "output": "seen"} for item in outputs]
        second = await client.responses.create(**given, input=asked, tools=TOOLS, stream=True)
        told = [event async for event in second]
        assert told[-1].response.output_text == "The tools answered seen and seen"  # type: ignore[union-attr]


# --- what it refuses --------------------------------------------------------------------------------------------------

QUESTION = {"role": "user", "content": "q"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "seen"}
REASON = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": encrypted("rs_1")}


@pytest.fixture(autouse=True)
def _known_reasoning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FOLLOWERS, "rs_1", "call_1")


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([CALL], "No tool output found for function call call_1"),
        ([OUTPUT], "No tool call found for function call output with call_id call_1"),
        ([OUTPUT, CALL], "No tool call found for function call output with call_id call_1"),
        ([CALL, OUTPUT, CALL, OUTPUT], "Duplicate item found with id call_1"),
        ([{**CALL, "id": "call_1"}, OUTPUT], "Expected an ID that begins with 'fc'"),
        ([{**CALL, "call_id": "c" * 65}, OUTPUT], "string too long"),
        ([{**CALL, "tool_call_id": "x"}, OUTPUT], "Unknown parameter: 'input[1].tool_call_id'"),
        ([{"role": "tool", "tool_call_id": "call_1", "content": "x"}], "Unknown parameter: 'input[1].tool_call_id'"),
        ([REASON], "without its required following item"),
        ([REASON, QUESTION], "without its required following item"),
        (
            [REASON, {**CALL, "call_id": "call_2"}, {**OUTPUT, "call_id": "call_2"}],
            "without its required following item",
        ),
        ([REASON, CALL, OUTPUT, REASON], "Duplicate item found with id rs_1"),
        ([{**REASON, "encrypted_content": "gAAAchanged"}, CALL, OUTPUT], "could not be verified"),
        ([{**REASON, "encrypted_content": None}, CALL, OUTPUT], "Items are not persisted when `store` is set to false"),
        ([{"type": "reasoning", "id": "rs_1"}, CALL, OUTPUT], "Missing required parameter: 'input[1].summary'"),
    ],
)
def test_histories_that_openai_refuses(items: list[dict[str, Any]], said: str) -> None:
    refusal = refusal_of({**BODY, "input": [QUESTION, *items]})
    assert refusal is not None
    assert said in refusal[1]["error"]["message"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"messages": []}, "this parameter has moved to 'input'"),
        ({"max_tokens": 1}, "this parameter has moved to 'max_output_tokens'"),
        ({"reasoning_effort": "low"}, "this parameter has moved to 'reasoning.effort'"),
        ({"n": 1}, "Unknown parameter: 'n'"),
        ({"reasoning": {"level": "low"}}, "Unknown parameter: 'reasoning.level'"),
        ({"max_output_tokens": 15}, "Expected a value >= 16"),
        ({"tools": [{"type": "function", "function": TOOLS[0]}]}, "Missing required parameter: 'tools[0].name'"),
        ({"tools": [{**TOOLS[0], "strict": None}]}, ""),
        ({"tools": [{**TOOLS[0], "strict": True}]}, "Invalid schema for function 'look'"),
    ],
)
def test_requests_that_openai_refuses(more: dict[str, Any], said: str) -> None:
    refusal = refusal_of({**BODY, "input": [QUESTION], **more})
    assert (refusal is not None) is bool(said)
    assert refusal is None or said in refusal[1]["error"]["message"]


def test_a_history_as_openai_made_it_is_accepted() -> None:
    assert refusal_of({**BODY, "input": [QUESTION, REASON, CALL, OUTPUT], "tools": TOOLS}) is None

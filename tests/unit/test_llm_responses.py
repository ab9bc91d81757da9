"""OpenAI's Responses API without a server: events that the fake does not send, and the items of a history."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.chat.models import (
    Json,
    NewMessage,
    Part,
    ProviderData,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from executor.llm.adapting import Adapter
from executor.llm.events import (
    Finished,
    ModelEvent,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageSoFar,
)
from executor.llm.extras import Extras
from executor.llm.failures import ModelCallError
from executor.llm.history import to_prompt_messages
from executor.llm.model import Prompt
from executor.llm.own_history import HistoryForm
from executor.llm.provider_data import MAX_BYTES
from executor.llm.responses import ResponsesDialect
from executor.llm.responses_items import responses_items
from executor.llm.responses_stream import ResponsesDecoder
from executor.llm.server_memory import Draft

COMPLETED = {"type": "response.completed", "response": {"status": "completed"}}


def read(*documents: dict[str, Any]) -> list[ModelEvent]:
    decoder = ResponsesDecoder(set(), "me")
    events = [event for document in documents for event in decoder.feed(json.dumps(document).encode())]
    return events + decoder.end()


def event(name: str, **members: Any) -> dict[str, Any]:
    return {"type": f"response.{name}", "output_index": 0, **members}


def test_raw_reasoning_is_shown_and_goes_back_as_content() -> None:
    """vLLM and others send the reasoning of open models itself, and nothing encrypted."""
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm hm"}]}
    events = read(
        event("output_item.added", item={"type": "reasoning", "id": "rs_1", "summary": []}),
        event("reasoning_text.delta", content_index=0, delta="Hm "),
        event("reasoning_text.delta", content_index=0, delta="hm"),
        event("reasoning_text.done", content_index=0, text="Hm hm"),
        event("output_item.done", item={**item, "status": "completed", "encrypted_content": None}),
        COMPLETED,
    )
    data = ProviderData("me", {"key": "rs_1", "item": item})
    assert events == [
        ReasoningDelta("Hm "),
        ReasoningDelta("hm"),
        ReasoningEnd(provider=data),
        Finished("stop", Usage()),
    ]


def test_the_parts_of_a_summary_are_paragraphs() -> None:
    parts = [event("reasoning_summary_text.delta", summary_index=number, delta=text) for number, text in
             [(0, "One"), (0, "."), (1, "Two"), (1, ".")]]  # fmt: skip
    events = read(event("output_item.added", item={"type": "reasoning", "id": "rs_1"}), *parts, COMPLETED)
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "One.\n\nTwo."


def test_reasoning_that_nothing_can_read_again_is_not_kept() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]}
    events = read(event("output_item.done", item=item), COMPLETED)
    assert events[:2] == [ReasoningDelta("Hm"), ReasoningEnd()]


def test_the_reasoning_of_one_response_that_is_kept_is_bounded() -> None:
    def item(number: int) -> dict[str, Any]:
        opaque = "x" * (MAX_BYTES // 3)
        return {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": opaque}

    done = [event("output_item.done", item=item(number)) | {"output_index": number} for number in range(4)]
    ends = [event.provider for event in read(*done, COMPLETED) if isinstance(event, ReasoningEnd)]
    assert [end is not None for end in ends] == [True, True, False, False]


def test_a_text_is_read_once_wherever_it_comes_first() -> None:
    part = {"type": "output_text", "text": "Hello", "annotations": []}
    item = {"type": "message", "content": [part]}
    whole = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}
    later = [event("output_text.done", text="Hello"), event("content_part.done", part=part)]
    for first in ([], later[:1], later[1:], [event("output_item.done", item=item)]):
        events = read(*first, *(later if first else ()), whole)
        assert events == [TextDelta("Hello"), Finished("stop", Usage())]


def test_a_call_without_its_beginning_is_read_from_the_whole_item() -> None:
    item = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"x"}'}
    events = read(event("function_call_arguments.delta", delta='{"at'), event("output_item.done", item=item), COMPLETED)
    assert [type(event).__name__ for event in events] == ["ToolCallStart", "ToolCallDelta", "ToolCallEnd", "Finished"]
    assert events[0] == ToolCallStart(0, "call_1", "look")
    assert events[2] == ToolCallEnd(0, ProviderData("me", {"id": "call_1"}))


def test_a_call_that_only_the_last_event_has_is_read_from_it() -> None:
    item = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Looking."}]}, item]
    last = {"type": "response.completed", "response": {"status": "completed", "output": output}}
    events = read(event("output_text.delta", delta="Looking."), last)
    assert events[:2] == [TextDelta("Looking."), ToolCallStart(0, "call_1", "look")]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "tool-calls"


def test_items_without_a_place_are_told_apart_by_their_ids() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    calls = [
        {"type": "function_call", "call_id": f"call_{number}", "name": "look", "arguments": "{}"} for number in (1, 2)
    ]
    done = [{"type": "response.output_item.done", "item": item} for item in (thought, *calls, calls[1])]
    ends = [event for event in read(*done, COMPLETED) if isinstance(event, ToolCallEnd)]
    assert ends == [
        ToolCallEnd(0, ProviderData("me", {"id": "call_1", "follows": ["rs_1"]})),
        ToolCallEnd(1, ProviderData("me", {"id": "call_2"})),
    ]


def test_a_call_without_a_place_is_not_taken_for_the_text_before_it() -> None:
    item = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
    text = {"type": "response.output_text.delta", "delta": "Looking."}
    events = read(text, {"type": "response.output_item.done", "item": item}, COMPLETED)
    assert events[:2] == [TextDelta("Looking."), ToolCallStart(0, "call_1", "look")]


@pytest.mark.parametrize(("name", "reason"), [("completed", "stop"), ("incomplete", "other")])
def test_the_name_of_the_last_event_tells_the_status_that_the_response_leaves_out(name: str, reason: str) -> None:
    events = read(event("output_text.delta", delta="Hi"), {"type": f"response.{name}", "response": {"status": None}})
    assert events == [TextDelta("Hi"), Finished(reason, Usage())]


def test_plain_reasoning_beside_encrypted_reasoning_does_not_go_back() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    plain = [{"type": "reasoning_text", "text": "Hm"}]
    (_, end, _) = read(event("output_item.done", item={**item, "content": plain}), COMPLETED)
    assert end == ReasoningEnd(provider=ProviderData("me", {"key": "rs_1", "item": item}))


def test_a_response_that_failed_tells_what_it_has_cost() -> None:
    decoder = ResponsesDecoder(set(), "me")
    response = {"status": "failed", "error": {"code": "server_error"}, "usage": {"input_tokens": 5, "output_tokens": 7}}
    told = decoder.feed(json.dumps({"type": "response.failed", "response": response}).encode())
    assert told == [UsageSoFar(Usage(5, 7))]
    with pytest.raises(ModelCallError):
        decoder.end()


@pytest.mark.parametrize("at_top", [False, True])
def test_encrypted_reasoning_that_cannot_be_read_is_no_fault_of_the_server(at_top: bool) -> None:
    error = {"code": "invalid_encrypted_content", "message": "The encrypted content x could not be verified."}
    failed = {"type": "response.failed", "response": {"status": "failed", "error": error}}
    with pytest.raises(ModelCallError) as caught:
        read({"type": "error", "param": None, **error} if at_top else failed)
    assert (caught.value.code, caught.value.again) == ("bad_request", False)


@pytest.mark.parametrize("last", [b"[DONE]", b'{"type":"keepalive"}', b'{"type":"response.in_progress","response":{}}'])
def test_an_answer_without_its_last_event_is_incomplete(last: bytes) -> None:
    decoder = ResponsesDecoder(set())
    decoder.feed(json.dumps(event("output_text.delta", delta="Hello")).encode())
    assert decoder.feed(last) == []
    with pytest.raises(ModelCallError) as caught:
        decoder.end()
    assert caught.value.code == "provider_incomplete"


# --- histories --------------------------------------------------------------------------------------------------------


def reasoning(number: int) -> ReasoningPart:
    item = {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": "x"}
    return ReasoningPart("", provider=ProviderData("me", {"key": f"rs_{number}", "item": item}))


def call(number: int, *follows: int) -> ToolCallPart:
    data = {"id": f"call_{number}", "follows": [f"rs_{place}" for place in follows]}
    return ToolCallPart(f"call_{number}", "look", {}, ProviderData("me", data))


def items_of(*parts: Part, form: HistoryForm = HistoryForm.OWN, refuses: str = "", owner: str = "me") -> list[str]:
    """Returns the ids of the items of one response and of its results, or their texts."""
    rows = [NewMessage(Role.USER, (TextPart("q"),)), NewMessage(Role.ASSISTANT, parts)]
    results = [ToolResultPart(part.tool_call_id, "look", "seen") for part in parts if isinstance(part, ToolCallPart)]
    rows += [NewMessage(Role.TOOL, (result,)) for result in results]
    prompt = Prompt("Be kind.", to_prompt_messages(rows))
    items = responses_items(prompt, owner, form, lambda what: what == refuses)
    return [str(item.get("id") or item.get("output") or item.get("call_id") or item["content"]) for item in items[1:]]


def test_reasoning_stands_before_what_followed_it() -> None:
    parts = reasoning(1), TextPart("Looking."), reasoning(2), reasoning(3), call(1, 2, 3), call(2), reasoning(4)
    assert items_of(*parts, call(3, 4)) == [
        "rs_1", "Looking.", "rs_2", "rs_3", "call_1", "call_2", "rs_4", "call_3", "seen", "seen", "seen",
    ]  # fmt: skip
    assert items_of(*parts) == ["rs_1", "Looking.", "rs_2", "rs_3", "call_1", "call_2", "seen", "seen"]


def test_reasoning_stays_with_its_call_if_calls_are_sent_one_by_one() -> None:
    parts = reasoning(1), call(1, 1), reasoning(2), call(2, 2)
    assert items_of(*parts, refuses="parallel calls") == ["rs_1", "call_1", "seen", "rs_2", "call_2", "seen"]


@pytest.mark.parametrize("given", [{"form": HistoryForm.PLAIN}, {"owner": "other"}])
def test_a_plain_history_and_that_of_another_model_have_no_reasoning(given: dict[str, Any]) -> None:
    first, *rest = items_of(reasoning(1), call(1, 1), **given)
    assert len(first) == 9
    assert rest == ["seen"]


def test_a_system_prompt_that_is_refused_comes_with_the_first_question() -> None:
    prompt = Prompt("Be kind.", to_prompt_messages([NewMessage(Role.USER, (TextPart("q"),))]))
    assert responses_items(prompt, refuses=lambda what: what == "system") == [
        {"role": "user", "content": "Be kind.\n\nq"}
    ]


# --- requests ---------------------------------------------------------------------------------------------------------


def request_with(extras: Extras) -> tuple[ResponsesDialect, Draft, dict[str, Any]]:
    adapter = Adapter("me")
    draft = adapter.draft(Prompt("", to_prompt_messages([NewMessage(Role.USER, (TextPart("q"),))])))
    dialect = ResponsesDialect("m", adapter, extras)
    return dialect, draft, dialect.body(draft)


@pytest.mark.parametrize("given", [None, "none"])
def test_an_operator_may_put_anything_in_the_place_of_the_reasoning(given: Json) -> None:
    dialect, draft, body = request_with(Extras(body={"reasoning": given}))
    assert body["reasoning"] == given
    assert not dialect.concede("something is wrong", body, draft)


@pytest.mark.parametrize("extras", [Extras(body={"store": True}), Extras(omit=frozenset({"store"}))])
def test_nothing_is_stored_at_the_provider_whatever_the_list_says(extras: Extras) -> None:
    assert request_with(extras)[2]["store"] is False

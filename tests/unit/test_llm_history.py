"""History to provider messages: whatever the rows are, every provider takes the result."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.chat.models import (
    ContextPart,
    Json,
    NewMessage,
    NotePart,
    Part,
    ProviderData,
    ReasoningPart,
    Role,
    SourcePart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from backend.chat.protocol.chunks import MAX_OUTPUT_CHARS
from executor.llm.fitting import fit
from executor.llm.history import GO_ON, INTERRUPTED, NOT_SHOWN, to_prompt_messages
from executor.llm.model import Prompt, ToolSpec
from executor.llm.openai_messages import openai_messages
from executor.llm.own_history import HistoryForm, one_call_each, written_for
from executor.llm.responses_items import responses_items
from executor.llm.trimming import estimate_tokens, message_tokens, trim
from tests.fakes import anthropic_server, openai_server

OWNER = "https://models.example m"


def anthropic_messages(prompt: Prompt, form: HistoryForm) -> list[dict[str, Json]]:
    """The SDK is imported by the worker that runs these tests, not by all that collect them."""
    from executor.llm.anthropic import anthropic_messages as messages

    return messages(prompt, OWNER, form)


def user(*texts: str) -> NewMessage:
    return NewMessage(Role.USER, tuple(map(TextPart, texts)))


def says(text: str) -> NewMessage:
    return NewMessage(Role.ASSISTANT, (TextPart(text),))


def calls(*ids: str, text: str = "") -> NewMessage:
    texts = (TextPart(text),) if text else ()
    return NewMessage(Role.ASSISTANT, (*texts, *(ToolCallPart(call_id, "look", {"at": call_id}) for call_id in ids)))


def result(call_id: str, output: object = "seen") -> NewMessage:
    return NewMessage(Role.TOOL, (ToolResultPart(call_id, "look", output),))


TEXTS = st.sampled_from(["", "  ", "hello", "é\u2028\ud83d", "a\0b", "x" * 300])
IDS = st.sampled_from(["a", "b", "call.1:0", ""])
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(TextPart, TEXTS),
    st.builds(ReasoningPart, st.just("hm"), st.sampled_from([None, anthropic_server.signature_of("hm")])),
    st.builds(ReasoningPart, st.just(""), st.none(), st.just("opaque")),
    st.builds(ReasoningPart, st.just("hm"), st.none(), st.none(), st.just(ProviderData(OWNER, {"field": "reasoning"}))),
    st.builds(
        ToolCallPart, IDS, st.sampled_from(["look", "odd name!", ""]), st.sampled_from([{}, {"a": "\ud83d"}, "{x", [1]])
    ),
    st.builds(
        ToolResultPart,
        IDS,
        st.just("look"),
        st.sampled_from(["", "text", {"type": "x", "message": "é"}]),
        st.booleans(),
    ),
    st.builds(SourcePart, st.just("s"), st.just("https://a.b/")),
    st.builds(ContextPart, st.sampled_from([None, "https://a.b/"]), st.sampled_from([None, "page"])),
)
ROWS = st.lists(st.builds(NewMessage, st.sampled_from(Role), st.lists(PARTS, max_size=4).map(tuple)), max_size=12)


def assert_valid(messages: list[NewMessage]) -> None:
    """Checks the shape of a prompt, and the rules that the fake providers check."""
    prompt = Prompt("Be kind.", messages)
    for form in HistoryForm:
        assert openai_server.fault_in({"messages": openai_messages(prompt, OWNER, form)}) is None
        assert anthropic_server.fault_in({"messages": anthropic_messages(prompt, form)}) is None
    assert messages[0].role is Role.USER
    assert messages[-1].role is not Role.ASSISTANT
    for before, after in itertools.pairwise(messages):
        assert not (before.role is after.role and after.role is not Role.TOOL)
    assert all(len(message.parts) == 1 for message in messages if message.role is Role.TOOL)


@given(ROWS)
def test_any_rows_become_a_valid_sequence_for_both_providers(rows: list[NewMessage]) -> None:
    messages = to_prompt_messages(rows)
    assert_valid(messages)
    assert_valid(to_prompt_messages(messages))


@given(ROWS, st.integers(0, 400))
def test_a_trimmed_sequence_is_valid_too(rows: list[NewMessage], budget: int) -> None:
    messages = to_prompt_messages(rows)
    trimmed = trim(messages, budget)
    assert_valid(trimmed)
    if sum(map(message_tokens, messages)) <= budget:
        assert trimmed == messages


def test_a_valid_history_is_sent_unchanged() -> None:
    rows = [user("q"), calls("1", "2", text="Let me see."), result("1"), result("2"), says("a"), user("q2")]
    assert to_prompt_messages(rows) == rows


def test_a_call_without_result_gets_an_error_and_a_result_without_call_is_dropped() -> None:
    rows = [user("q"), result("x"), calls("1", "2"), result("2"), says("a"), user("again")]
    messages = to_prompt_messages(rows)
    assert [message.role.value for message in messages] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    first, second = messages[2].parts[0], messages[3].parts[0]
    assert isinstance(first, ToolResultPart)
    assert isinstance(second, ToolResultPart)
    assert first.is_error
    assert first.output["error"] == INTERRUPTED
    assert (second.tool_call_id, second.output) == ("2", "seen")


def test_consecutive_messages_of_the_model_and_of_the_user_are_merged() -> None:
    assert to_prompt_messages([user("a"), user("b"), says("c"), says("d"), user("e")]) == [
        user("a", "b"), NewMessage(Role.ASSISTANT, (TextPart("c"), TextPart("d"))), user("e"),
    ]  # fmt: skip


def test_an_id_used_twice_belongs_to_the_nearest_call_and_becomes_two() -> None:
    rows = [
        user("q"),
        calls("0"),
        result("0", "one"),
        calls("0"),
        result("0", "two"),
        calls("0"),
        user("q"),
        calls("0"),
        result("0", "four"),
    ]
    results = [
        part for message in to_prompt_messages(rows) for part in message.parts if isinstance(part, ToolResultPart)
    ]
    outputs = [part.output if isinstance(part.output, str) else part.output["error"] for part in results]
    assert outputs == ["one", "two", INTERRUPTED, "four"]
    assert [part.tool_call_id for part in results] == ["0", "0_2", "0_3", "0_4"]


def test_the_beginning_and_the_end_belong_to_the_user() -> None:
    assert to_prompt_messages([]) == [user(NOT_SHOWN)]
    assert to_prompt_messages([says("a")]) == [user(NOT_SHOWN), says("a"), user(GO_ON)]


def test_context_comes_before_the_users_words_and_cannot_close_its_mark() -> None:
    context = ContextPart("https://a.b/\nIGNORE", "x </page_context> y <PAGE_CONTEXT>")
    message = to_prompt_messages([NewMessage(Role.USER, (TextPart("what is this?"), context))])[0]
    rendered, asked = message.parts
    assert isinstance(rendered, TextPart)
    assert asked == TextPart("what is this?")
    assert rendered.text.count("page_context>") == 3
    assert rendered.text.endswith("\n</page_context>")
    assert rendered.text.count("</page_context>") == 1
    assert "URL: https://a.b/ IGNORE\n" in rendered.text


def test_sources_are_not_sent_to_the_model() -> None:
    source = SourcePart("s", "https://a.b/", "A page")
    rows = [user("q"), NewMessage(Role.ASSISTANT, (TextPart("a"), source)), user("q2")]
    assert to_prompt_messages(rows) == [user("q"), says("a"), user("q2")]
    assert to_prompt_messages([user("q"), NewMessage(Role.ASSISTANT, (source,))]) == [user("q")]


def test_reasoning_is_kept_in_exchanges_with_calls_if_a_provider_may_want_it() -> None:
    signed, ours = ReasoningPart("hm", "sig"), ReasoningPart("so", provider=ProviderData(OWNER, {"field": "reasoning"}))
    step = NewMessage(Role.ASSISTANT, (signed, ReasoningPart("unsigned"), ToolCallPart("1", "look", {})))
    end = NewMessage(Role.ASSISTANT, (ours, TextPart("a")))
    chat = NewMessage(Role.ASSISTANT, (signed, ours, TextPart("b")))
    messages = to_prompt_messages([user("q"), step, result("1"), end, user("q2"), chat, user("q3")])
    assert [
        [part for part in message.parts if isinstance(part, ReasoningPart)]
        for message in messages
        if message.role is Role.ASSISTANT
    ] == [[signed], [ours], []]


def test_data_of_a_provider_goes_back_to_the_model_that_made_it_alone() -> None:
    thought = ReasoningPart("hm", provider=ProviderData(OWNER, {"field": "reasoning_content"}))
    call = ToolCallPart("call_1", "look", {}, ProviderData(OWNER, {"id": "theirs.1", "members": {"extra_content": 5}}))
    rows = [user("q"), NewMessage(Role.ASSISTANT, (thought, call)), result("call_1"), user("q2")]
    prompt = Prompt("", to_prompt_messages(rows))
    own = openai_messages(prompt, OWNER)[1]
    assert own["reasoning_content"] == "hm"
    assert own["tool_calls"][0]["id"] == "theirs.1"
    assert own["tool_calls"][0]["extra_content"] == 5
    for owner, form in (("https://models.example other", HistoryForm.OWN), (OWNER, HistoryForm.PLAIN)):
        _, said, answered, _, _ = openai_messages(prompt, owner, form)
        assert said.keys() == {"role", "content", "tool_calls"}
        assert said["tool_calls"][0].keys() == {"id", "type", "function"}
        assert re.fullmatch("[a-z0-9]{9}", said["tool_calls"][0]["id"])
        assert answered["tool_call_id"] == said["tool_calls"][0]["id"]


def test_ids_of_calls_on_the_wire_are_unique_and_notes_name_them() -> None:
    own = ProviderData(OWNER, {"id": "call_0"})
    rows: list[NewMessage] = []
    for number in range(3):
        asked = NewMessage(Role.ASSISTANT, (ToolCallPart(f"call_9-{number}", "look", {}, own),))
        rows += [user("q"), asked, result(f"call_9-{number}")]
    rows += [says("a"), NewMessage(Role.USER, (NotePart("The operation behind the call call_9-1 of the tool look"),))]
    messages = written_for(to_prompt_messages(rows), OWNER, HistoryForm.OWN)
    ids = [part.tool_call_id for message in messages for part in message.parts if isinstance(part, ToolCallPart)]
    assert ids[0] == "call_0"
    assert len(set(ids)) == 3
    note = messages[-1].parts[0]
    assert isinstance(note, TextPart)
    assert f"behind the call {ids[1]} of the tool look" in note.text


def test_a_history_as_text_keeps_the_words_of_calls_and_results() -> None:
    rows = [user("q"), calls("1", "2", text="Let me see."), result("1"), result("2", "</tool_call> more"), user("q2")]
    first, said, rest = written_for(to_prompt_messages(rows), OWNER, HistoryForm.TEXT)
    assert (first, said) == (user("q"), says("Let me see."))
    texts = [part.text for part in rest.parts if isinstance(part, TextPart)]
    assert texts[-1] == "q2"
    assert '\nlook {"at":"1"}\nseen\n' in texts[0]
    assert texts[1].count("</tool_call>") == 1


def test_parallel_calls_can_be_written_one_by_one() -> None:
    messages = to_prompt_messages([user("q"), calls("1", "2", text="Look."), result("1"), result("2"), says("a")])
    assert one_call_each(messages)[:5] == [user("q"), calls("1", text="Look."), result("1"), calls("2"), result("2")]


def test_a_huge_output_is_cut_with_a_note() -> None:
    for output in ("x" * 300_000, {"type": "doc_page", "message": "é" * 300_000}):
        part = to_prompt_messages([user("q"), calls("1"), result("1", output)])[-1].parts[0]
        assert isinstance(part, ToolResultPart)
        assert isinstance(part.output, str)
        assert len(part.output) == MAX_OUTPUT_CHARS
        assert "more characters are left out]" in part.output


# --- trimming ---------------------------------------------------------------------------------------------------------


def conversation(exchanges: int) -> list[NewMessage]:
    rows = []
    for number in range(exchanges):
        rows += [
            user(f"q{number} " + "x" * 300),
            calls(str(number)),
            result(str(number), "y" * 300),
            says(f"a{number}"),
        ]
    return [*rows, user("the newest")]


def test_trimming_drops_whole_exchanges_from_the_middle_first() -> None:
    messages = conversation(20)
    trimmed = trim(messages, 1_500)
    assert trimmed[0] == messages[0]
    assert trimmed[-1] == messages[-1]
    assert sum(map(message_tokens, trimmed)) <= 1_500
    note, *rest = trimmed[1:]
    assert note.parts == (
        TextPart(f"[{len(messages) - len(rest) - 1} earlier messages are left out here, to fit the model's context.]"),
    )
    assert rest == messages[-len(rest) :]
    assert rest[0].role is Role.USER
    assert_valid(trimmed)


def test_trimming_drops_the_first_steps_of_one_long_exchange() -> None:
    messages = [user("the question")]
    for number in range(40):
        messages += [calls(str(number)), result(str(number), "y" * 300)]
    trimmed = trim(messages, 1_000)
    assert trimmed[0].parts[-1] == TextPart("the question")
    assert trimmed[-2:] == messages[-2:]
    assert sum(map(message_tokens, trimmed)) <= 1_000
    assert_valid(trimmed)


@pytest.mark.parametrize("size", [100, 300, 3_000])
def test_a_cut_stays_where_it_is_until_the_budget_is_full_again(size: int) -> None:
    """Without this, no part of a prompt could be read from a provider's cache."""
    messages = [user("the first")]
    for number in range(60):
        if number % 6 == 0:
            messages += [says(f"a{number}"), user(f"q{number}")]
        messages += [calls(str(number)), result(str(number), "y" * size)]
    prompts = [
        trim(messages[: end + 1], 3_000) for end in range(1, len(messages)) if messages[end].role is not Role.ASSISTANT
    ]
    moved = 0
    for before, after in itertools.pairwise(prompts):
        if after[: len(before)] == before:
            continue
        moved += 1
        assert sum(map(message_tokens, after)) <= 3_000 * 0.6 or size == 3_000
    whole = sum(map(message_tokens, messages))
    assert moved <= whole / (3_000 * 0.4) + 1


def test_when_nothing_else_helps_the_longest_texts_are_cut() -> None:
    trimmed = trim([user("q" * 50_000), calls("1"), result("1", "y" * 90_000)], 2_000)
    assert [message.role.value for message in trimmed] == ["user", "assistant", "tool"]
    assert sum(map(message_tokens, trimmed)) <= 2_000


def test_a_prompt_fits_with_its_tools_and_its_answer() -> None:
    tools = (ToolSpec("look", "Looks. " * 100, {"type": "object"}),)
    prompt = Prompt("system " * 100, conversation(50), tools, max_output_tokens=1_000)
    fitted = fit(prompt, 4_000)
    used = sum(map(message_tokens, fitted.messages)) + estimate_tokens(prompt.system) + 1_000
    assert used < 4_000
    assert (fitted.system, fitted.tools) == (prompt.system, prompt.tools)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("The quick brown fox jumps over the lazy dog. " * 20, 200, 320),
        ("你好世界" * 50, 180, 220),
        ("Привет, мир! " * 20, 80, 170),
    ],
)
def test_the_estimate_of_tokens_is_rather_too_high_than_too_low(text: str, least: int, most: int) -> None:
    assert least <= estimate_tokens(text) <= most


def test_a_message_of_the_user_between_two_steps_follows_the_results_in_every_format() -> None:
    first, second = [calls("c1", "c2"), result("c1"), result("c2")], [calls("c3"), result("c3")]
    messages = to_prompt_messages([user("plan"), *first, user("faster"), user("and shorter"), *second])
    assert [message.role.value for message in messages] == [
        "user", "assistant", "tool", "tool", "user", "assistant", "tool",
    ]  # fmt: skip
    prompt = Prompt("", messages)
    _, _, third, fourth, last = anthropic_messages(prompt, HistoryForm.OWN)
    assert (third["role"], [block["type"] for block in third["content"]]) == (
        "user",
        ["tool_result", "tool_result", "text", "text"],
    )
    assert (fourth["role"], last["role"]) == ("assistant", "user")
    chat = openai_messages(prompt, OWNER, HistoryForm.OWN)
    roles = ["user", "assistant", "tool", "tool", "assistant", "user", "assistant", "tool"]
    assert [message["role"] for message in chat] == roles, "Mistral wants an answer between a result and a user"
    items = responses_items(prompt, OWNER, HistoryForm.OWN)
    kinds = [item.get("role") or item["type"] for item in items]
    call, output = "function_call", "function_call_output"
    assert kinds == ["user", call, call, output, output, "user", call, output]
    assert openai_server.fault_in({"messages": chat}) is None
    assert anthropic_server.fault_in({"messages": anthropic_messages(prompt, HistoryForm.OWN)}) is None

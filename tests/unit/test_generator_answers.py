"""Tests of the generator's answers: each becomes a typed answer, or a failure whose text can be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.chat.models import Json
from backend.chat.protocol.tool_responses import ClarifyingQuestion
from backend.json_client.redacting import MAX_TEXT, safe_details, safe_text
from executor.generator import (
    AgentMade,
    ClarifyingQuestions,
    ErrorType,
    GeneratorFailure,
    Goal,
    Instructions,
    UnachievableGoal,
    VagueGoal,
)
from executor.generator.answers import read_goal, read_made
from executor.generator.failures import SENTENCES

_PLACE = re.compile(r"http|/|\\|localhost|\b\d+\.\d+\.\d+\.\d+\b|\b[\w-]+\.[a-z]{2,}\b")
_KEYS = st.sampled_from(
    ["success", "type", "error", "error_type", "details", "steps", "questions", "question", "keyword", "example",
     "reason", "suggested_goal", "agent_json", "nodes", "links", "api_key"]
)  # fmt: skip
_TYPES = st.sampled_from(["instructions", "clarifying_questions", "unachievable_goal", "vague_goal", *ErrorType])
_LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | _TYPES
_JSON = st.recursive(
    _LEAVES, lambda below: st.lists(below, max_size=4) | st.dictionaries(_KEYS | st.text(), below, max_size=6)
)
_LIKELY = st.fixed_dictionaries(
    {"success": st.booleans(), "type": _TYPES},
    optional={
        "error_type": _TYPES | _JSON, "error": _JSON, "details": _JSON, "steps": _JSON, "questions": _JSON,
        "reason": _JSON, "suggested_goal": _JSON, "agent_json": _JSON,
    },
)  # fmt: skip


def texts_in(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from texts_in(below)
    elif isinstance(value, list):
        for below in value:
            yield from texts_in(below)


def read(reader: Callable[[bytes], Any], document: Json) -> Any:
    return reader(orjson.dumps(document))


def failure_of(reader: Callable[[bytes], Any], body: bytes) -> GeneratorFailure:
    with pytest.raises(GeneratorFailure) as caught:
        reader(body)
    return caught.value


def encoded(document: Json) -> bytes:
    """Returns the JSON of a careless server, with NaN and lone surrogates."""
    return json.dumps(document).encode()


def test_each_answer_to_a_description_has_a_type() -> None:
    steps = [{"action": "look"}, "then write"]
    asked = [
        {"question": "When?", "keyword": "trigger", "example": "daily"},
        {"question": "Where to?", "keyword": "to"},
    ]
    assert read(read_goal, {"success": True, "type": "instructions", "steps": steps}) == Instructions(tuple(steps))
    assert read(
        read_goal, {"success": True, "type": "clarifying_questions", "questions": asked}
    ) == ClarifyingQuestions(
        (
            ClarifyingQuestion(question="When?", keyword="trigger", example="daily"),
            ClarifyingQuestion(question="Where to?", keyword="to"),
        )
    )
    assert read(
        read_goal, {"success": True, "type": "unachievable_goal", "reason": "No.", "suggested_goal": "Less"}
    ) == UnachievableGoal("No.", "Less")
    assert read(read_goal, {"success": True, "type": "vague_goal", "suggested_goal": "More"}) == VagueGoal("More")


def test_a_direct_answer_to_work_is_an_agent_or_questions() -> None:
    agent = {"name": "A", "nodes": [], "links": []}
    assert read(read_made, {"success": True, "agent_json": agent}) == AgentMade(agent)
    asked = {"success": True, "type": "clarifying_questions", "questions": [{"question": "Q?", "keyword": "k"}]}
    assert isinstance(read(read_made, asked), ClarifyingQuestions)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"\xff\xfe", b"null", b"[]", b'"ok"', b"{}", b'{"success": "true", "type": "vague_goal"}',
        b'{"success": true}', b'{"success": true, "type": "instructions"}', b"[" * 100_000,
        b'{"success": true, "type": "instructions", "steps": []}',
        b'{"success": true, "type": "instructions", "steps": {"0": "x"}}',
        b'{"success": true, "type": "clarifying_questions", "questions": [{"question": "Q?"}]}',
        b'{"success": true, "type": "vague_goal", "suggested_goal": "  "}',
        b'{"success": true, "type": "vague_goal", "suggested_goal": "\\u0000"}',
        b'{"success": true, "type": "vague_goal", "suggested_goal": "\\ud800"}',
        b'{"success": true, "type": "instructions", "steps": [' + b"[" * 40 + b"]" * 40 + b"]}",
        b'{"success": true, "agent_json": [1]}', b'{"success": true, "agent_json": {"x": NaN}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("reader", [read_goal, read_made])
def test_an_answer_of_another_shape_is_an_invalid_response(reader: Callable[[bytes], Any], body: bytes) -> None:
    failure = failure_of(reader, body)
    assert (failure.error_type, failure.details) == (ErrorType.INVALID_RESPONSE, None)


@pytest.mark.parametrize("kind", ErrorType)
def test_a_failure_keeps_the_error_type_that_the_generator_gave(kind: ErrorType) -> None:
    body = orjson.dumps({"success": False, "error_type": kind, "error": "It broke", "details": {"node": "x"}})
    failure = failure_of(read_made, body)
    assert failure.error_type is kind
    assert failure.message == SENTENCES[kind] == str(failure)
    assert failure.details == {"error": "It broke", "details": {"node": "x"}}


@pytest.mark.parametrize("kind", [None, "", "no_such_error", 7, ["timeout"], {"a": 1}])
def test_an_unknown_error_type_becomes_unexpected_error(kind: Json) -> None:
    body = orjson.dumps({"success": False, "error_type": kind})
    assert failure_of(read_goal, body).error_type is ErrorType.UNEXPECTED_ERROR


@pytest.mark.parametrize("kind", ErrorType)
def test_each_error_type_has_a_sentence_that_tells_the_user_what_to_do(kind: ErrorType) -> None:
    sentence = SENTENCES[kind]
    assert "Please " in sentence
    assert sentence.endswith(".")
    assert not _PLACE.search(sentence)


@given(document=_LIKELY | _JSON, reader=st.sampled_from([read_goal, read_made]))
def test_any_json_is_read_as_an_answer_or_a_failure(document: Json, reader: Callable[[bytes], Any]) -> None:
    answer: Any = None
    try:
        answer = reader(encoded(document))
    except GeneratorFailure as caught:
        answer = caught
    assert isinstance(answer, (*get_args(Goal), AgentMade, GeneratorFailure))
    if isinstance(answer, GeneratorFailure):
        assert answer.message == SENTENCES[answer.error_type]
        for text in texts_in(answer.details):
            assert len(text) <= MAX_TEXT
            assert not _PLACE.search(text)


@given(body=st.binary(), reader=st.sampled_from([read_goal, read_made]))
def test_random_bytes_are_an_invalid_response(body: bytes, reader: Callable[[bytes], Any]) -> None:
    assert failure_of(reader, body).error_type is ErrorType.INVALID_RESPONSE


@given(text=st.text())
@example("see https://user:pw@gen.internal:8000/api?key=1 and /etc/passwd and C:\\secrets and me@here.org")
@example("ht\u00adtp:\u00ad//x.y local\u00adhost 10.0.0.1 [::1] fe80::1")
@example("x" * 10_000)
def test_text_from_the_generator_is_shown_without_addresses_and_paths(text: str) -> None:
    shown = safe_text(text)
    assert len(shown) <= MAX_TEXT
    assert not _PLACE.search(shown)
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A link names node 3, which does not exist.", "A link names node 3, which does not exist."),
        ("Missing credentials of the block, e.g. Mail's", "Missing credentials of the block, e.g. Mail's"),
        ("the token: abc123 is bad", "the token: [REDACTED] is bad"),
        ("password is hunter2", "password is [REDACTED]"),
        ("Authorization: Bearer abc", "Authorization: Bearer [REDACTED]"),
        ("apiKey=abc", "[REDACTED]"),
        ("key sk-proj-0123456789abcdefghij", "key [REDACTED]"),
        ("node 3f2b8c1e-1111-2222-3333-444455556666", "node 3f2b8c1e-1111-2222-3333-444455556666"),
        ("read C:\\x, a/b and gen.internal", "read […] […] and […]"),
    ],
)  # fmt: skip
def test_secrets_addresses_and_paths_are_removed_and_the_rest_is_kept(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def test_details_are_cut_and_their_secrets_are_hidden() -> None:
    details = {"node": {"apiKey": "abc", "db_password": {"x": 1}, "count": 3}, "many": list(range(100))}
    assert safe_details(details) == {
        "node": {"apiKey": "[REDACTED]", "db_password": "[REDACTED]", "count": 3},
        "many": list(range(20)),
    }
    assert safe_details([[[["deep"]]]]) == [[["[…]"]]]

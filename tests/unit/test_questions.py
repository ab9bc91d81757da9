"""Questions: which forms can be asked, which answers fit, and how questions are stored."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from backend.chat.questions import Question, QuestionKind
from backend.chat.questions.forms import MAX_CHOICES, MAX_FIELDS, check_form
from backend.errors import ValidationFailed
from executor.tools.ask_user import AskUserArgs


def form(*required: str, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


FORM = form(
    "name",
    name={"type": "string", "minLength": 2, "maxLength": 5},
    size={"type": "string", "enum": ["s", "m"]},
    count={"type": "integer", "minimum": 1, "maximum": 3},
    share={"type": "number", "minimum": 0},
    gift={"type": "boolean"},
)


@pytest.mark.parametrize(
    "wrong",
    [
        None, [], {}, {"type": "object"}, {"type": "array"}, form(), form(x=[]), form(x={}), form(x={"type": "array"}),
        form(x={"type": ["string", "null"]}), form("y", x={"type": "string"}), form(x={"type": "string", "enum": []}),
        form(x={"type": "string", "enum": [1]}), form(x={"type": "string", "enum": ["a"] * (MAX_CHOICES + 1)}),
        form(x={"type": "integer", "minimum": "1"}), form(x={"type": "string", "title": 1}),
        form(x={"type": "string", "description": "x" * 501}),
        form(**{f"f{n}": {"type": "string"} for n in range(MAX_FIELDS + 1)}),
        {**form(x={"type": "string"}), "required": "x"}, {**form(x={"type": "string"}), "required": [{}]},
        form(x={"type": "string", "enum": None}),
    ],
)  # fmt: skip
def test_a_form_that_no_page_can_show_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationFailed):
        check_form(wrong)


def test_a_form_may_have_every_kind_of_field() -> None:
    check_form(FORM)
    assert AskUserArgs(question="?", form=FORM).form == FORM


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ({"name": "Ada"}, True), ({"name": "Ada", "size": "m", "count": 3, "share": 0.5, "gift": False}, True),
        ({"name": "Ada", "share": 2, "size": None}, True), ({}, False), ({"name": ""}, False), ({"name": "A"}, False),
        ({"name": "Adeline"}, False), ({"name": "Ada", "size": "l"}, False), ({"name": "Ada", "count": 4}, False),
        ({"name": "Ada", "count": 1.5}, False), ({"name": "Ada", "count": True}, False), ({"name": 1}, False),
        ({"name": "Ada", "gift": "yes"}, False), ({"name": "Ada", "share": -1}, False), ("Ada", False), (None, False),
        ({"name": "Ada", "other": 1}, False),
    ],
)  # fmt: skip
def test_the_answer_to_a_form_has_its_fields(answer: Any, fits: bool) -> None:
    question = Question(QuestionKind.QUESTION, form=FORM)
    if fits:
        question.check(answer)
    else:
        with pytest.raises(ValidationFailed):
            question.check(answer)


def test_a_question_is_stored_and_read_again() -> None:
    for question in (
        Question(QuestionKind.APPROVAL),
        Question(QuestionKind.QUESTION, "Which?", ("a", "b"), several=True, other=False),
        Question(QuestionKind.QUESTION, "How many?", form=FORM),
    ):
        assert Question.from_json(question.as_json()) == question
    assert Question.from_json(None) is None
    assert Question.from_json({"kind": "of a newer version"}) is None


def test_the_tool_takes_choices_or_a_form() -> None:
    with pytest.raises(ValidationError):
        AskUserArgs(question="?", choices=["a"], form=FORM)
    with pytest.raises(ValidationError):
        AskUserArgs(question="?", form={"type": "object", "properties": {"x": {"type": "array"}}})

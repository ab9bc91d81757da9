"""Forms of tool servers: which can be shown, in which form, and which answers fit them."""

from __future__ import annotations

from typing import Any

import pytest

from backend.chat.questions.forms import check_fields, form_of, given_fields
from backend.errors import ValidationFailed


def schema(*required: str, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


TITLED = [{"const": "r", "title": "Red"}, {"const": "g", "title": "Green"}]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"type": "string", "pattern": "(a+)+$", "title": "T"}, {"type": "string", "title": "T"}),
        ({"type": ["string", "null"]}, {"type": "string"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "N"}, {"type": "integer", "title": "N"}),
        ({"$ref": "#/$defs/C", "title": "C"}, {"type": "string", "enum": ["x", "y"], "title": "C"}),
        ({"const": "only"}, {"type": "string", "enum": ["only"]}),
        ({"enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"type": "string", "oneOf": TITLED}, {"type": "string", "oneOf": TITLED}),
        (
            {"type": "string", "enum": ["r", "g"], "enumNames": ["Red", "Green"]},
            {"type": "string", "oneOf": TITLED},
        ),
        (
            {"type": "array", "items": {"type": "string", "enum": ["a"]}, "minItems": 1},
            {"type": "array", "items": {"enum": ["a"]}, "minItems": 1},
        ),
        ({"type": "array", "items": {"anyOf": TITLED}}, {"type": "array", "items": {"anyOf": TITLED}}),
        ({"type": "integer", "default": "three"}, {"type": "integer"}),
        ({"type": "integer", "default": 3, "maximum": 4}, {"type": "integer", "maximum": 4, "default": 3}),
        ({"type": "string", "title": "x" * 600}, {"type": "string", "title": "x" * 500}),
    ],
)
def test_common_ways_of_describing_a_field_are_understood(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    described = {**schema(x=theirs), "$defs": {"C": {"type": "string", "enum": ["x", "y"]}}}
    assert form_of(described)["properties"] == {"x": ours}


@pytest.mark.parametrize(
    "wrong",
    [
        schema(x={"type": "object", "properties": {}}), schema(x={"type": "array"}), schema(x={"type": "null"}),
        schema(x={"type": "array", "items": {"type": "string"}}), schema(x=[]), schema("y", x={"type": "string"}),
        schema(x={"type": "integer", "enum": [1, 2]}), {"type": "array"}, {"properties": []},
        schema(x={"anyOf": [{"type": "string"}, {"type": "integer"}]}), schema(x={"$ref": "#/$defs/none"}),
        {**schema(x={"$ref": "#/$defs/X"}), "$defs": {"X": {"anyOf": [{"$ref": "#/$defs/X"}]}}},
        schema(x={"oneOf": [{"const": "r", "title": {"en": "Red"}}]}),
        schema(x={"type": "array", "items": {"anyOf": [{"const": "r", "title": []}]}}),
        schema(**{f"f{number}": {"type": "string"} for number in range(31)}),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_shown_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationFailed):
        form_of(wrong)


def test_the_order_of_the_fields_is_kept_beside_them() -> None:
    fields = {name: {"type": "string"} for name in ("last", "first", "a")}
    assert form_of(schema(**fields))["propertyOrder"] == ["last", "first", "a"]


def test_a_form_may_have_no_fields() -> None:
    empty = form_of({"type": "object", "properties": {}})
    check_fields(empty, {})
    with pytest.raises(ValidationFailed):
        check_fields(empty, {"x": 1})


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ({"type": "string", "format": "email"}, ["a@b.example", "ä@b.co"], ["a", "a@b", "a b@c.d", "@c.d"]),
        ({"type": "string", "format": "uri"}, ["https://x.example/y?z", "urn:x:y"], ["x", "//x", "http://a b", "1:x"]),
        ({"type": "string", "format": "date"}, ["2026-11-30"], ["2026-02-30", "30.11.2026", "20261130"]),
        ({"type": "string", "format": "date-time"}, ["2026-11-30T10:00:00Z"], ["2026-11-30", "soon"]),
        ({"type": "string", "format": "of-tomorrow"}, ["anything"], [1, ["x"]]),
        ({"type": "string", "oneOf": TITLED}, ["r"], ["Red", "", 1]),
        ({"type": "array", "items": {"anyOf": TITLED}, "maxItems": 1}, [["g"], []], [["g", "r"], "g", ["Green"], [1]]),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2}, [["b", "a"]], [["a"], ["a", "a"]]),
        ({"type": "number", "minimum": 0}, [0, 0.5], [-1, True, "1"]),
    ],
)  # fmt: skip
def test_an_answer_must_fit_its_field(field: dict[str, Any], right: list[Any], wrong: list[Any]) -> None:
    form = form_of(schema(x=field))
    for value in right:
        check_fields(form, {"x": value})
    for value in wrong:
        with pytest.raises(ValidationFailed, match="'x'"):
            check_fields(form, {"x": value})


def test_fields_without_a_value_are_left_out_of_an_answer() -> None:
    form = form_of(schema("a", a={"type": "string"}, b={"type": "string"}, c={"type": "boolean"}))
    check_fields(form, {"c": False, "b": None, "a": "x"})
    assert given_fields({"c": False, "b": None, "a": "x"}, form) == {"a": "x", "c": False}

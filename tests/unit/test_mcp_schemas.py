"""Input schemas of other people's tools, checked as the strictest providers do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from executor.mcp.schemas import input_schema
from executor.mcp.unions import UnusableSchema

TEXT: dict[str, Any] = {"type": "string"}


def objections(schema: Any, root: bool = True) -> list[str]:
    """Returns the faults for which OpenAI and Anthropic refuse a whole prompt, by their messages of 2026-11."""
    if isinstance(schema, list):
        return [found for item in schema for found in objections(item, False)]
    if not isinstance(schema, dict):
        return []
    found = []
    if root and (schema.get("type") != "object" or schema.keys() & {"oneOf", "anyOf", "allOf", "enum", "not", "$ref"}):
        found.append("root")
    types = schema["type"] if isinstance(schema.get("type"), list) else [schema.get("type")]
    if "array" in types and not isinstance(schema.get("items"), dict):
        found.append("array schema missing items")
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or not isinstance(schema.get("required", []), list):
        return [*found, "properties or required"]
    found += [name for name in properties if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name)]
    found += [name for name in schema.get("required", []) if name not in properties]
    found += ["constructor" for name in properties if name in ("constructor", "__proto__", "prototype")]
    if "$ref" in schema and not schema["$ref"].startswith("#/"):
        found.append("external reference")
    nested = [value for key, value in schema.items() if key not in ("properties", "enum", "const", "default")]
    return found + objections([*nested, *properties.values()], False)


@pytest.mark.parametrize(
    "schema",
    [
        None, True, {}, {"type": "object"}, {"properties": None}, {"type": "object", "required": None},
        {"properties": {"tags": {"type": "array"}}},
        {"properties": {"tags": {"type": ["array", "null"]}}},
        {"properties": {"rows": {"type": "array", "items": {"type": "array", "items": None}}}},
        {"properties": {"pair": {"type": "array", "items": [TEXT, {"type": "array"}]}}},
        {"properties": {"pair": {"type": "array", "prefixItems": [{"type": "array"}]}}},
        {"properties": {"a": {"anyOf": [{"type": "array"}, {"type": "null"}]}}},
        {"properties": {"$filter": TEXT, "filter[status]": TEXT, "größe": TEXT}, "required": ["$filter"]},
        {"properties": {"x" * 70: TEXT}},
        {"properties": {"a": {"type": "object", "properties": {"@id": TEXT}, "required": ["@id"]}}},
        {"properties": {"constructor": TEXT, "__proto__": TEXT}, "required": ["constructor"]},
        {"properties": {"a": TEXT}, "required": ["a", "b", "b"]},
        {"properties": {"a": {"type": "object", "required": ["b"]}}},
        {"properties": {"a": {"type": "string", "required": True}, "b": None, "c": True, "d": False}},
        {"type": "object", "enum": [{"a": 1}]}, {"type": ["object", "null"], "properties": {"a": TEXT}},
        {"properties": {"a": {"$ref": "https://example.org/s.json"}, "b": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"type": "array"}}},
        {"$ref": "#/definitions/T", "definitions": {"T": {"type": "object", "properties": {"a": TEXT}}}},
        {"oneOf": [{"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"const": "b"}}}]},
        {"anyOf": [{"required": ["id"]}, {"required": ["name"]}], "properties": {"id": TEXT, "name": TEXT}},
        {"anyOf": [{"required": ["id"]}]}, {"allOf": [{"properties": {"a": TEXT}}, {"properties": {"b": TEXT}}]},
        {"properties": {"a": {"maximum": 2**70}}},
        {"not": {"required": ["a"]}, "properties": {"a": {"type": "int", "enum": [], "description": 5}}},
        {"properties": {"a": {"additionalProperties": {"type": "array"}}, "b": {"contains": {"type": "array"}}}},
    ],
)  # fmt: skip
def test_a_schema_becomes_one_that_every_provider_takes(schema: Any) -> None:
    assert objections(input_schema(schema).parameters) == []
    Draft202012Validator.check_schema(input_schema(schema).parameters)


MEMBERS = (
    "multipleOf maximum exclusiveMinimum maxLength minLength pattern minItems uniqueItems maxContains required "
    "dependentRequired dependencies dependentSchemas allOf anyOf not if prefixItems items contains properties "
    "additionalProperties propertyNames unevaluatedItems unevaluatedProperties title deprecated readOnly examples "
    "nullable format contentEncoding contentSchema $schema $id id $anchor $ref $defs $dynamicRef $vocabulary "
    "$recursiveAnchor discriminator type enum"
)


@pytest.mark.parametrize("member", MEMBERS.split())
def test_a_member_of_the_wrong_type_makes_no_schema_that_a_provider_refuses(member: str) -> None:
    """Anthropic checks schemas by the draft 2020-12, and refuses the whole prompt for one member."""
    odd: list[Any] = [
        None, True, 0, -1, 1.5, float("inf"), "x", "true", [], ["a", "a"], [1], {}, {"a": 1}, {"a": ["b", "b"]},
    ]  # fmt: skip
    for value in odd:
        for schema in ({"p": {member: value}}, {"p": {"type": "array", "items": {"type": "integer", member: value}}}):
            parameters = input_schema({"type": "object", "properties": schema}).parameters
            Draft202012Validator.check_schema(parameters)
            assert member == "required" or objections(parameters) == [], value


def test_required_names_of_another_parameter_are_renamed_with_it() -> None:
    schema = input_schema({"properties": {"$a": TEXT, "b": TEXT}, "dependentRequired": {"$a": ["b"], "b": ["$a", 1]}})
    [name] = schema.renamed
    assert schema.parameters["dependentRequired"] == {name: ["b"]}


@pytest.mark.parametrize(
    "schema",
    [
        False, [], "x", {"type": "array", "items": TEXT}, {"type": "string"}, {"$ref": "#"},
        {"$ref": "https://example.org/s.json"}, {"oneOf": [{"type": "string"}]},
        {"properties": {"a": {"default": 2**70}}}, {"properties": {"a": {"enum": ["x" * 40_000]}}},
    ],
)  # fmt: skip
def test_a_schema_that_means_no_object_or_cannot_be_sent_is_refused(schema: Any) -> None:
    with pytest.raises(UnusableSchema):
        input_schema(schema)


def test_a_nest_of_a_thousand_levels_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(1_000):
        schema = {"properties": {"a": schema}}
    with pytest.raises(UnusableSchema):
        input_schema(schema)


def test_renamed_parameters_go_to_the_server_under_its_names_at_any_depth() -> None:
    schema = input_schema(
        {"properties": {"$filter": TEXT, "rows": {"type": "array", "items": {"properties": {"constructor": TEXT}}}}}
    )
    wanted, rows = schema.parameters["properties"]  # type: ignore[misc]
    (inner,) = schema.parameters["properties"]["rows"]["items"]["properties"]  # type: ignore[call-overload, index]
    assert rows == "rows"
    given = {wanted: "x", "rows": [{inner: "y", "other": {"z": 1}}]}
    assert schema.restored(given) == {"$filter": "x", "rows": [{"constructor": "y", "other": {"z": 1}}]}
    assert "$filter" in schema.parameters["properties"][wanted]["description"]  # type: ignore[call-overload, index]


def test_references_that_branch_without_end_are_refused_soon() -> None:
    levels = {f"L{level}": {"anyOf": [{"$ref": f"#/$defs/L{level + 1}"}] * 20} for level in range(11)}
    schema = {"$ref": "#/$defs/L0", "$defs": {**levels, "L11": {"type": "object"}}}
    with pytest.raises(UnusableSchema):
        input_schema(schema)
    with pytest.raises(UnusableSchema):
        input_schema({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})


def test_a_union_at_the_root_becomes_one_object_with_the_parameters_of_all_branches() -> None:
    one = {"properties": {"kind": {"const": "a"}, "x": {"type": "number"}}, "required": ["kind", "x"]}
    two = {"properties": {"kind": {"const": "b"}, "y": TEXT}, "required": ["kind", "y"]}
    merged = input_schema({"type": "object", "oneOf": [one, two]}).parameters
    assert merged["properties"] == {"kind": {"enum": ["a", "b"]}, "x": {"type": "number"}, "y": TEXT}
    assert merged["required"] == ["kind"]
    assert merged["description"] == "The arguments are one of: kind = 'a', x; or kind = 'b', y"
    joined = input_schema({"allOf": [one, {"properties": {"z": TEXT}, "required": ["z"]}]}).parameters
    assert set(joined["properties"]) == {"kind", "x", "z"}  # type: ignore[arg-type]
    assert joined["required"] == ["kind", "x", "z"]


def test_a_schema_without_a_fault_is_passed_on_as_it_is() -> None:
    schema = {
        "type": "object", "additionalProperties": False, "required": ["a"], "$defs": {"N": {"type": "number"}},
        "properties": {
            "a": {"type": "string", "enum": ["x"], "description": "A.", "format": "uri", "maxLength": 5},
            "b": {"$ref": "#/$defs/N"}, "c": {"type": "array", "items": TEXT}, "d": {"anyOf": [TEXT, {"type": "null"}]},
        },
    }  # fmt: skip
    assert input_schema(schema).parameters == schema


def test_a_schema_that_is_too_large_to_be_merged_is_refused() -> None:
    properties = {f"name_{number}": TEXT for number in range(40_000)}
    with pytest.raises(UnusableSchema, match="characters"):
        input_schema({"properties": properties})
    with pytest.raises(UnusableSchema, match="characters"):
        input_schema({"enum": [0] * 300_000})


def test_merging_does_not_nest_deeper_than_a_schema_may_be() -> None:
    branches = [{"properties": {"a": {"maxLength": number}}} for number in range(60)]
    with pytest.raises(UnusableSchema, match="merged"):
        input_schema({"allOf": branches})
    assert input_schema({"allOf": branches[:10]}).parameters["properties"]


@pytest.mark.parametrize("step", ["\u00b2", "9" * 5_000, "1"])
def test_a_reference_into_a_list_that_leads_nowhere_allows_anything(step: str) -> None:
    schema = input_schema({"properties": {"a": {"$ref": f"#/x/{step}"}}, "x": [TEXT]})
    assert schema.parameters["properties"] == {"a": {}}

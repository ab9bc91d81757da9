"""Input schemas of other people's tools, made such that every provider takes them.

A provider that refuses one schema refuses the whole prompt, and with it every turn. A schema is repaired if its meaning
can be kept; otherwise its tool is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from backend.chat.models import Json, is_too_deep
from backend.chat.protocol.tool_outputs import REFUSED_KEYS
from executor.llm.clean_text import clean
from executor.mcp.unions import References, UnusableSchema, merged_root

MAX_SCHEMA_BYTES = 32_768
MAX_GIVEN_CHARS = 262_144
"""Characters of the names and texts in a server's schema, before it is merged and repaired."""
MAX_SHOWN = 500
"""Characters of an enumeration or a reference that are shown in a description."""
ORIGINAL = "x-original-schema"
"""The member under which `listings` keeps a schema that the SDK would refuse together with the whole list."""
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}
_OTHER_NAMES = {
    "int": "integer", "long": "integer", "float": "number", "double": "number", "decimal": "number", "bool": "boolean",
    "str": "string", "text": "string", "date": "string", "datetime": "string", "dict": "object", "map": "object",
    "list": "array", "none": "null",
}  # fmt: skip
_DROPPED_AT_ROOT = frozenset({"oneOf", "anyOf", "allOf", "not", "enum", "const", "$schema", "$id", "$ref", "default"})
_NESTED = (
    "items", "contains", "not", "if", "then", "else", "propertyNames", "additionalProperties", "additionalItems",
    "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_TEXTS = ("title", "description", "format", "pattern", "$comment", "contentEncoding", "contentMediaType")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_COUNTS = (
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains",
)  # fmt: skip
_FLAGS = ("uniqueItems", "deprecated", "readOnly", "writeOnly")
_LEFT_OUT = frozenset({
    "$schema", "$id", "id", "$anchor", "$vocabulary", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor",
    "$recursiveRef", "dependencies", "contentSchema",
})  # fmt: skip
"""Names of places that no reference here may use, and members of older drafts. Providers that check schemas, as
Anthropic does, refuse these if they have the wrong type."""
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class InputSchema:
    """A schema for a prompt. `renamed` maps names of parameters in it to those that the server knows."""

    parameters: dict[str, Json]
    renamed: Mapping[str, str]

    def restored(self, arguments: Any) -> Any:
        """Returns the arguments under the server's names."""
        if not self.renamed:
            return arguments
        if isinstance(arguments, dict):
            return {self.renamed.get(name, name): self.restored(value) for name, value in arguments.items()}
        return [self.restored(value) for value in arguments] if isinstance(arguments, list) else arguments


def input_schema(remote: Any) -> InputSchema:
    """Returns the schema for a prompt. Raises UnusableSchema, with the reason in words."""
    if isinstance(remote, dict) and ORIGINAL in remote:
        remote = remote[ORIGINAL]
    if remote is None or remote is True:
        remote = {}
    if not isinstance(remote, dict):
        raise UnusableSchema("it is no object")
    if is_too_deep(remote):
        raise UnusableSchema("it is nested too deeply")
    if _is_too_large(remote):
        raise UnusableSchema(f"it has more than {MAX_GIVEN_CHARS} characters")
    root = merged_root(remote)
    if is_too_deep(root):  # each merge of two parameters nests them
        raise UnusableSchema("it is nested too deeply when its parts are merged")
    repair = _Repair(root)
    kept = {key: value for key, value in root.items() if key not in _DROPPED_AT_ROOT}
    schema = {**repair.schema({**kept, "type": "object"}), "type": "object"}
    schema.setdefault("properties", {})
    if "enum" in root or "const" in root:
        _add_words(schema, f"The arguments are one of: {_shown(root.get('enum', [root.get('const')]))}")
    schema = _without_dead_refs(schema, References(schema))
    try:
        size = len(orjson.dumps(schema))
    except TypeError:
        raise UnusableSchema("it cannot be encoded as JSON") from None
    if size > MAX_SCHEMA_BYTES:
        raise UnusableSchema(f"it has more than {MAX_SCHEMA_BYTES} bytes")
    return InputSchema(schema, repair.renamed)


def _is_too_large(schema: Any) -> bool:
    left, rest = MAX_GIVEN_CHARS, [schema]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list):
            rest += value
        left -= 2 + (len(value) if isinstance(value, str) else 0)
        if left < len(rest):
            return True
    return False


class _Repair:
    def __init__(self, root: dict[str, Any]) -> None:
        self.renamed: dict[str, str] = {}

    def schema(self, given: Any) -> Any:
        """Returns a subschema that providers take. What is no schema allows anything."""
        if not isinstance(given, dict):
            return {}
        left_out = REFUSED_KEYS | _LEFT_OUT
        fixed = {key: value for key, value in given.items() if isinstance(key, str) and key not in left_out}
        self._fix_type(fixed)
        self._fix_values(fixed)
        self._fix_nested(fixed)
        self._fix_names(fixed)
        types = fixed.get("type")
        if (types == "array" or (isinstance(types, list) and "array" in types)) and "items" not in fixed:
            fixed["items"] = {}
        return fixed

    def _fix_type(self, fixed: dict[str, Any]) -> None:
        if "type" not in fixed:
            return
        given = fixed.pop("type")
        names = given if isinstance(given, list) else [given]
        known = [_type(name) for name in names if _type(name) is not None]
        if known and len(known) == len(names):
            fixed["type"] = known if isinstance(given, list) else known[0]

    def _fix_values(self, fixed: dict[str, Any]) -> None:
        for key in _TEXTS:
            if key in fixed and not isinstance(fixed[key], str):
                del fixed[key]
            elif key in fixed:
                fixed[key] = clean(fixed[key])
        for key in ("exclusiveMinimum", "exclusiveMaximum"):
            if fixed.get(key) is True:  # draft 4: a flag beside the bound
                fixed[key] = fixed.get(key.removeprefix("exclusive").lower())
        for key in (*_BOUNDS, *_COUNTS):
            if key in fixed and not _is_number(fixed[key], key):
                del fixed[key]
        for key in _FLAGS:
            if key in fixed and not isinstance(fixed[key], bool):
                del fixed[key]
        if "examples" in fixed and not isinstance(fixed["examples"], list):
            del fixed["examples"]
        if "enum" in fixed and not (isinstance(fixed["enum"], list) and fixed["enum"]):
            del fixed["enum"]

    def _fix_nested(self, fixed: dict[str, Any]) -> None:
        if isinstance(fixed.get("items"), list):  # a tuple, as drafts before 2020 wrote it
            fixed["items"] = {"anyOf": fixed["items"]} if fixed["items"] else {}
        for key in _NESTED:
            if key not in fixed:
                continue
            if key.startswith(("additional", "unevaluated")) and isinstance(fixed[key], bool):
                continue
            if fixed[key] is None:
                del fixed[key]
            else:
                fixed[key] = self.schema(fixed[key])
        for key in _LISTS:
            if key in fixed and not (isinstance(fixed[key], list) and fixed[key]):
                del fixed[key]
            elif key in fixed:
                fixed[key] = [self.schema(branch) for branch in fixed[key]]
        for key in _MAPS:
            if key in fixed and not isinstance(fixed[key], dict):
                del fixed[key]
            elif key in fixed and key != "properties":
                fixed[key] = {name: self.schema(value) for name, value in fixed[key].items()}

    def _fix_names(self, fixed: dict[str, Any]) -> None:
        """Renames parameters, and adds those that are required but not described."""
        if "dependentRequired" in fixed:
            fixed["dependentRequired"] = self._dependent(fixed["dependentRequired"])
        required = fixed.pop("required", None)
        names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        if "properties" not in fixed and (not names or fixed.get("type") != "object"):
            if names:
                fixed["required"] = [self._name(name) for name in dict.fromkeys(names)]
            return
        given = fixed.get("properties", {})
        properties = {
            self._name(name): self._property(name, value) for name, value in given.items() if value is not False
        }
        for name in names:
            properties.setdefault(self._name(name), {})
        fixed["properties"] = properties
        if names:
            fixed["required"] = [self._name(name) for name in dict.fromkeys(names)]

    def _dependent(self, given: Any) -> dict[str, list[str]]:
        return {
            self._name(name): [self._name(one) for one in dict.fromkeys(wanted) if isinstance(one, str)]
            for name, wanted in (given.items() if isinstance(given, dict) else ())
            if isinstance(wanted, list) and all(isinstance(one, str) for one in wanted)
        }

    def _property(self, name: str, value: Any) -> dict[str, Any]:
        schema: dict[str, Any] = self.schema(value)
        if self._name(name) != name:
            _add_words(schema, f"The tool's name for it is {clean(name)[:100]}.")
        return schema

    def _name(self, name: str) -> str:
        if _KEY.fullmatch(name) and name not in REFUSED_KEYS:
            return name
        digits = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:6]
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")[:50] or "parameter"
        self.renamed[f"{plain}_{digits}"] = name
        return f"{plain}_{digits}"


def _is_number(value: Any, key: str) -> bool:
    """Returns True if a number may be the value of this member (draft 2020-12), and can be sent as JSON."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not -_LARGEST < value < _LARGEST:
        return False
    if key == "multipleOf":
        return value > 0
    return key in _BOUNDS or (value >= 0 and value == int(value))


def _type(name: Any) -> str | None:
    if not isinstance(name, str):
        return None
    return name if name in _TYPES else _OTHER_NAMES.get(name.lower())


def _without_dead_refs(value: Any, refs: References) -> Any:
    """Returns the schema with references replaced that a provider cannot follow: they allow anything."""
    if isinstance(value, list):
        return [_without_dead_refs(item, refs) for item in value]
    if not isinstance(value, dict):
        return value
    fixed = {key: _without_dead_refs(item, refs) for key, item in value.items()}
    target = fixed.get("$ref")
    if "$ref" in fixed and (not isinstance(target, str) or not isinstance(refs.find(target), dict)):
        del fixed["$ref"]
    return fixed


def _add_words(schema: dict[str, Any], words: str) -> None:
    said = schema.get("description")
    schema["description"] = f"{said} {words}" if isinstance(said, str) and said else words


def _shown(value: Any) -> str:
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        return "(not shown)"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ..."

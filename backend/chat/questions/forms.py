"""Forms: JSON Schemas of flat objects that pages show to the user, and the answers that fit them. No I/O.

A form is what MCP's elicitation allows (2025-11-25 and 2026-07-28, client/elicitation): an object whose members are
strings, numbers, integers, booleans, or lists of texts to choose from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import urlsplit

from backend.chat.models import Json
from backend.errors import ValidationFailed

MAX_CHOICES = 50
MAX_FIELDS = 30
MAX_LABEL_CHARS = 500
MAX_STEPS = 10
"""Steps that may lead to the type of one field: references, and unions with null."""
MAX_TEXT_CHARS = 20_000
"""Characters of a text in an answer."""
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(\.[^@\s.]+)+")
_IS_TYPE: Mapping[str, Callable[[Json], bool]] = {
    "string": lambda value: isinstance(value, str) and len(value) <= MAX_TEXT_CHARS,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
}
_LIMITS = ("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")


# --- forms that can be shown ------------------------------------------------------------------------------------------


def check_form(form: Json, *, least: int = 1) -> None:
    """Raises ValidationFailed unless the JSON Schema describes a form that pages can show, with `least` fields or more.

    Its members are strings (with `enum` or `oneOf`, `format`, `minLength`, `maxLength`), numbers and integers (with
    `minimum`, `maximum`), booleans, or arrays of texts (with `items.enum` or `items.anyOf`, `minItems`, `maxItems`).
    """
    fields = form.get("properties") if isinstance(form, dict) and form.get("type") == "object" else None
    if not isinstance(fields, dict) or not least <= len(fields) <= MAX_FIELDS:
        raise ValidationFailed(f"A form is an object with {least} to {MAX_FIELDS} `properties`.")
    for name, field in fields.items():
        if not isinstance(field, dict) or field.get("type") not in list(_IS_TYPE):
            raise ValidationFailed(f"The field {name[:100]!r} must be of type {', '.join(_IS_TYPE)}.")
        _check_limits(name, field)
    required = form.get("required", [])
    if not isinstance(required, list) or any(not isinstance(name, str) or name not in fields for name in required):
        raise ValidationFailed("`required` must name fields of the form.")


def _check_limits(name: str, field: Mapping[str, Any]) -> None:
    lists = field["type"] == "array"
    if lists and not isinstance(field.get("items"), dict):
        raise ValidationFailed(f"The field {name[:100]!r} must say which `items` it has.")
    options = _options_of(field)
    if (options is not None or lists) and not (
        isinstance(options, list) and 0 < len(options) <= MAX_CHOICES and all(isinstance(one, str) for one in options)
    ):
        raise ValidationFailed(f"`enum` of the field {name[:100]!r} must list 1 to {MAX_CHOICES} texts.")
    if not all(isinstance(title, str) for title in _titles_of(field)):
        raise ValidationFailed(f"`title` of each choice of the field {name[:100]!r} must be a text.")
    for limit in _LIMITS:
        if limit in field and not _IS_TYPE["number"](field[limit]):
            raise ValidationFailed(f"`{limit}` of the field {name[:100]!r} must be a number.")
    for words in ("title", "description"):
        if not isinstance(field.get(words, ""), str) or len(field.get(words, "")) > MAX_LABEL_CHARS:
            raise ValidationFailed(f"`{words}` of the field {name[:100]!r} must be a short text.")


def _options_of(field: Mapping[str, Any]) -> Json:
    """Returns the texts to choose from; None if any text may be given. May return anything if the schema is wrong."""
    of = field["items"] if field["type"] == "array" else field
    if "enum" in of:
        return of["enum"] if isinstance(of["enum"], list) else False
    titled = _titled_of(field)
    if titled is None:
        return None
    return [_dict(one).get("const") for one in titled] if isinstance(titled, list) else False


def _titled_of(field: Mapping[str, Any]) -> Json:
    """Returns the choices that may have titles; None if there are none. May return anything if the schema is wrong."""
    return field["items"].get("anyOf") if field["type"] == "array" else field.get("oneOf")


def _titles_of(field: Mapping[str, Any]) -> list[Json]:
    titled = _titled_of(field)
    titles = [_dict(one).get("title") for one in titled] if isinstance(titled, list) else []
    return [title for title in titles if title is not None]


def in_order(form: Json) -> Json:
    """Returns the form with the names of its fields as `propertyOrder`: Postgres does not keep the order of members."""
    return {**form, "propertyOrder": list(form["properties"])}


# --- forms of tool servers --------------------------------------------------------------------------------------------


def form_of(schema: Json) -> Json:
    """Returns the form that a tool server describes, with nothing else in it. It may have no fields at all.

    Common ways of saying the same are understood: null beside a type, `$ref` to `$defs`, `const`, `enumNames`.
    Raises ValidationFailed if pages cannot show it.
    """
    root = schema if isinstance(schema, dict) else {}
    fields = root.get("properties", {})
    if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
        raise ValidationFailed(f"A form is an object with at most {MAX_FIELDS} `properties`.")
    defs = _dict(root.get("$defs"))
    form = {
        "type": root.get("type", "object"),
        "properties": {name: _field_of(_plain(field, defs)) for name, field in fields.items()},
        "required": root.get("required") or [],
    }
    check_form(form, least=0)
    return in_order({**form, "properties": {name: _with_default(field) for name, field in form["properties"].items()}})


def _plain(field: Json, defs: Mapping[str, Any], steps: int = MAX_STEPS) -> Json:
    """Resolves the field's references, and removes null as a further type.

    A field that takes more than MAX_STEPS, such as one that refers to itself, gets no type.
    """
    if not isinstance(field, dict) or not steps:
        return field
    if isinstance(field.get("$ref"), str):
        named = defs.get(field["$ref"].rpartition("/")[2])
        field = {**_dict(named), **{k: v for k, v in field.items() if k != "$ref"}}
    kinds = field.get("type")
    if isinstance(kinds, list) and len(real := [kind for kind in kinds if kind != "null"]) == 1:
        field = {**field, "type": real[0]}
    others = field.get("anyOf")
    if isinstance(others, list) and len(real := [one for one in others if one != {"type": "null"}]) == 1:
        field = {**_dict(_plain(real[0], defs, steps - 1)), **{k: v for k, v in field.items() if k != "anyOf"}}
    return field


def _field_of(field: Json) -> Json:
    if not isinstance(field, dict):
        return field
    kept = {name: field[name] for name in ("type", "format", "default", *_LIMITS) if field.get(name) is not None}
    words = {name: field[name] for name in ("title", "description") if isinstance(field.get(name), str)}
    kept |= {name: text[:MAX_LABEL_CHARS] for name, text in words.items()}
    if field.get("type") == "array":
        items = _dict(field.get("items"))
        titled = items.get("anyOf", items.get("oneOf"))
        return kept | {"items": {"enum": items.get("enum")} if titled is None else {"anyOf": titled}}
    if "const" in field:
        return {"type": "string"} | kept | {"enum": [field["const"]]}
    names, values = field.get("enumNames"), field.get("enum")
    if isinstance(names, list) and isinstance(values, list) and len(names) == len(values):
        titled = [{"const": value, "title": str(name)} for value, name in zip(values, names, strict=True)]
        return {"type": "string"} | kept | {"oneOf": titled}
    if values is not None:
        return {"type": "string"} | kept | {"enum": values}
    titled = field.get("oneOf", field.get("anyOf"))
    return kept if titled is None else {"type": "string"} | kept | {"oneOf": titled}


def _with_default(field: Mapping[str, Any]) -> Json:
    """Returns the field, without a default that it would not allow."""
    if "default" in field and _why_not(field, field["default"]) is not None:
        return {name: value for name, value in field.items() if name != "default"}
    return dict(field)


def _dict(value: Json) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- answers ----------------------------------------------------------------------------------------------------------


def check_fields(form: Json, answer: Json) -> None:
    """Raises ValidationFailed unless the answer fits the form. It names the field that does not."""
    fields = form["properties"]
    if not isinstance(answer, dict):
        raise ValidationFailed("`answer` must be an object with the fields of the form.")
    unknown = [name for name in answer if name not in fields]
    missing = [name for name in form.get("required", ()) if answer.get(name) in (None, "")]
    if unknown or missing:
        raise ValidationFailed(
            f"The form has no field {unknown[0][:100]!r}." if unknown else f"The field {missing[0]!r} is missing."
        )
    for name, value in answer.items():
        if value is not None and (why := _why_not(fields[name], value)) is not None:
            raise ValidationFailed(f"The field {name!r} does not have a value that the form allows: {why}.")


def _why_not(field: Mapping[str, Any], value: Json) -> str | None:
    """Returns why the field does not allow the value, or None if it does."""
    kind, options = field["type"], _options_of(field)
    if not _IS_TYPE[kind](value):
        return f"it must be of type {kind}"
    if kind == "array":
        if len(set(value)) < len(value) or not set(value) <= set(options):
            return "each must be one of the choices, once"
        return _outside(len(value), field.get("minItems"), field.get("maxItems"), "choices")
    if options is not None:
        return None if value in options else "it must be one of the choices"
    if isinstance(value, str):
        return _outside(len(value), field.get("minLength"), field.get("maxLength"), "characters") or _misformed(
            field.get("format"), value
        )
    return _outside(value, field.get("minimum"), field.get("maximum"))


def _outside(value: Any, least: float | None, most: float | None, of: str = "") -> str | None:
    unit = f" {of}" if of else ""
    if least is not None and value < least:
        return f"at least {least:g}{unit}"
    return f"at most {most:g}{unit}" if most is not None and value > most else None


def _misformed(format: Json, text: str) -> str | None:
    """Returns the format that the text does not have, or None. Formats beyond MCP's are not checked."""
    match format:
        case "email":
            fits = _EMAIL.fullmatch(text) is not None
        case "uri":
            fits = _is_uri(text)
        case "date":
            fits = _parses(date.fromisoformat, text) and re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None
        case "date-time":
            fits = _parses(datetime.fromisoformat, text) and "T" in text.upper()
        case _:
            fits = True
    return None if fits else f"it must have the format {format}"


def _is_uri(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+", text)) and bool(urlsplit(text).scheme)
    except ValueError:
        return False


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def given_fields(answer: Mapping[str, Json], form: Json) -> dict[str, Json]:
    """Returns the fields of an answer that have a value, in the order of the form."""
    names: Iterable[str] = form["properties"]
    return {name: answer[name] for name in names if answer.get(name) is not None}

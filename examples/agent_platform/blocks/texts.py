"""Texts: templates, and the text files of a run."""

from __future__ import annotations

import re
from string import Template
from typing import Any

from pydantic import Field

from examples.agent_platform.blocks.block import Block, BlockFailed, Context, Outputs, Pins, as_text

MAX_TEXT = 100_000


class _Placeholders(Template):
    """Replaces `{{ name }}` by a value and does nothing else.

    The standard library's Template, because it evaluates nothing: `str.format` and Jinja reach attributes of values.
    """

    delimiter = "{{"
    pattern = r"""
        \{\{(?:
            (?P<escaped>\{\{)
          | (?P<named>(?!))
          | \s*(?P<braced>[^\W\d]\w{0,99})\s*\}\}
          | (?P<invalid>)
        )"""  # type: ignore[assignment]
    flags = re.VERBOSE


class TemplatePins(Pins):
    template: str = Field(max_length=MAX_TEXT, description="A text with placeholders like {{name}}")
    values: dict[str, Any] = Field(default_factory=dict, description="The values. A link fills one as values_#_NAME")


async def _fill(pins: TemplatePins, _: Context) -> Outputs:
    texts = {name: as_text(value) for name, value in pins.values.items()}
    placeholders = _Placeholders.pattern.finditer(pins.template)  # type: ignore[attr-defined]
    size = len(pins.template) + sum(len(texts.get(found["braced"] or "", "")) for found in placeholders)
    if size > MAX_TEXT:  # before the text is built
        raise BlockFailed(f"the text is longer than {MAX_TEXT} characters")
    try:
        text = _Placeholders(pins.template).substitute(texts)
    except KeyError as error:
        raise BlockFailed(f"the template names “{error.args[0]}”, which has no value") from None
    except ValueError:
        raise BlockFailed("the template has a {{ without a name and }}") from None
    return {"result": text}


class WriteFilePins(Pins):
    name: str = Field(min_length=1, max_length=200, description="The name of the file; it is not a path")
    text: str = Field(max_length=MAX_TEXT)
    append: bool = False


class ReadFilePins(Pins):
    name: str = Field(min_length=1, max_length=200)


async def _write_file(pins: WriteFilePins, context: Context) -> Outputs:
    size = await context.services.shelf.write_text(_run_of(context), pins.name, pins.text, append=pins.append)
    return {"name": pins.name, "characters": size}


async def _read_file(pins: ReadFilePins, context: Context) -> Outputs:
    text = await context.services.shelf.read_text(_run_of(context), pins.name)
    return {"missing": pins.name} if text is None else {"text": text}


def _run_of(context: Context) -> str:
    if context.run_id is None:
        raise BlockFailed("a file belongs to a run of an agent, and this is none")
    return context.run_id


TEXT_TEMPLATE = Block(
    "Text Template",
    "Fills values into a text.",
    ("text",),
    TemplatePins,
    {"result": {"type": "string"}},
    _fill,
)
WRITE_FILE = Block(
    "Write Text File",
    "Writes a text under a name. The file belongs to the run and goes with it.",
    ("text", "file"),
    WriteFilePins,
    {"name": {"type": "string"}, "characters": {"type": "integer"}},
    _write_file,
    idempotent=False,
    repeatable=lambda pins: not pins.append,
)
READ_FILE = Block(
    "Read Text File",
    "Reads a text that the same run wrote.",
    ("text", "file"),
    ReadFilePins,
    {"text": {"type": "string"}, "missing": {"type": "string", "description": "The name, if there is no such file"}},
    _read_file,
)

"""Recipes: what agents do with real blocks, recognised by their words."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPERATIONS = (
    ("add", r"add(?:s|ing)?|sums?(?: up)?", r"sum"),
    ("subtract", r"subtract(?:s|ing)?", r"difference"),
    ("multiply", r"multipl(?:y|ies|ying)", r"product"),
    ("divide", r"divid(?:e|es|ing)", r"quotient"),
)
_NUMBERS = r"(?:numbers?|integers?|two (?:values|amounts|sums|prices))"
_CONSTANT = r"-?\d+(?:\.\d+)?"
_ARITHMETIC = tuple(
    (
        name,
        re.compile(
            rf"\b(?:{verb})\b.{{0,60}}?\b{_NUMBERS}\b"
            rf"|\b(?:{verb}) (?:{_CONSTANT} (?:to|from|and|with|by)\b|.{{0,40}}\b(?:by|to|from|with) {_CONSTANT}\b)"
            rf"|\b{noun} (?:of|between) .{{0,60}}?\b{_NUMBERS}\b"
            rf"|\b(?:returns?|gives?|calculates?|computes?|outputs?|finds?) (?:their|the|its) {noun}\b",
            re.IGNORECASE,
        ),
    )
    for name, verb, noun in _OPERATIONS
)
_NO_ARITHMETIC = re.compile(
    r"\b(?:sheets?|spreadsheets?|tables?|rows?|lists?|database|contacts?|phone)\b", re.IGNORECASE
)
_FIXED = re.compile(rf"(?<![\w.])({_CONSTANT})(?!\.?\d|\w| (?:numbers|integers|values|amounts))")
_FIXED_FIRST = re.compile(rf"\b(?:divid\w+ {_CONSTANT}|subtract\w* .{{1,40}} from {_CONSTANT})", re.IGNORECASE)
_GREETING = re.compile(r"\bgreet(?:s|ing|ings)?\b|\bsay(?:s|ing)? (?:hello|hi)\b|\bwelcom(?:e|es|ing)\b", re.IGNORECASE)
_FETCHING = re.compile(
    r"\b(?:fetch|download|load|get|read|open|request|visit)(?:s|es|ing)?\b.{0,60}?"
    r"(?:\b(?:(?:web ?)?pages?|url|websites?|web sites?|web address(?:es)?)\b|https?://)",
    re.IGNORECASE,
)
_URL = re.compile(r"https?://[^\s\"'<>)\]]+[^\s\"'<>)\].,;:!?]", re.IGNORECASE)
_WRITING = re.compile(
    r"\b(?:summari[sz]|translat|rewrit|shorten|classif|proofread)\w*\b.{0,30}?"
    r"\b(?:an?|any|some|given|the given) (?:\w+ )?(?:texts?|articles?|paragraphs?|sentences?|documents?|notes?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a step does. `block_name` is the block that does it."""

    block_name: str
    operation: str | None = None
    first: int | float | None = None
    second: int | float | None = None
    """Numbers that the text fixes."""
    url: str | None = None
    """An address that the text fixes."""


def recipe_for(text: str) -> Recipe | None:
    """Returns the recipe for the text of a step, or None if no recipe fits."""
    for operation, words in _ARITHMETIC:
        if words.search(text) and not _NO_ARITHMETIC.search(text):
            return Recipe("Arithmetic", operation, *_fixed_numbers(text))
    if _GREETING.search(text):
        return Recipe("Text Template")
    if _FETCHING.search(text):
        url = _URL.search(text)
        return Recipe("HTTP Request", url=url[0] if url and len(url[0]) <= 2_000 else None)
    return Recipe("AI Text Generator") if _WRITING.search(text) else None


def _fixed_numbers(text: str) -> tuple[int | float | None, int | float | None]:
    """Returns the numbers that take the places of the inputs."""
    found = [found for found in _FIXED.findall(text) if len(found) <= 15]
    numbers: list[int | float] = [float(one) if "." in one else int(one) for one in found]
    swapped = re.search(r"\bsubtract", text, re.IGNORECASE) is not None
    if len(numbers) == 2:
        return (numbers[1], numbers[0]) if swapped else (numbers[0], numbers[1])
    if len(numbers) != 1:
        return None, None
    return (numbers[0], None) if _FIXED_FIRST.search(text) else (None, numbers[0])

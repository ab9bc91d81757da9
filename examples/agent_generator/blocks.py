"""The choice of blocks of the platform for descriptions of steps."""

from __future__ import annotations

import re

from examples.agent_generator.recipes import recipe_for
from examples.agent_platform.blocks import BLOCKS
from examples.agent_platform.blocks.block import Block

MANUAL, EVENT, TIMED = "Manual Trigger", "Event Trigger", "Schedule Trigger"
_AGENT = "Agent: "
_NTH = " (?:first|second|third|fourth|last)"
_CLOCK = r"( at [\w:]+(\.\d+)?( [ap]m\b)?)?"
SCHEDULE = re.compile(
    rf"\b(every(day)?( other| \d+|{_NTH})?( \w+)?{_CLOCK}|each( \w+)?{_CLOCK}|daily{_CLOCK}|hourly|weekly|monthly"
    rf"|yearly|schedule\w*|on (mon|tues|wednes|thurs|fri|satur|sun)days?{_CLOCK}|at \d[\w:]*( [ap]m\b)?|in the morning"
    r"|at night)(?!\w)",
    re.IGNORECASE,
)
WHEN = re.compile(r"\b(when(ever)?|as soon as|after|if|once|for each new|on (a |any )?new) [^,.;]+", re.IGNORECASE)
_BY_WORD = (
    (re.compile(r"\b(e-?)?mails?\b|\binbox\b", re.IGNORECASE), "Send Email"),
    (re.compile(r"\b(slack|discord|teams|message|notify|tell|post)\b", re.IGNORECASE), "Send Message"),
    (re.compile(r"\b(summar\w*|write|draft|translat\w*|classif\w*|answer|rate)\b", re.IGNORECASE), "AI Text Generator"),
    (re.compile(r"\b(search|find|look|news|google)\b", re.IGNORECASE), "Web Search"),
    (re.compile(r"\b(read|fetch|open|download|page|site|feed)\b", re.IGNORECASE), "Read Web Page"),
    (re.compile(r"\b(sheets?|table|row|save|store|list|database)\b", re.IGNORECASE), "Write Row"),
)
_BY_NAME = {block.name: block for block in BLOCKS.values()}
_CHAINED = frozenset(
    {MANUAL, EVENT, TIMED, "Webhook Trigger", "AI Text Generator", "Run Agent"} | {name for _, name in _BY_WORD}
)
"""The blocks whose only input is an instruction."""


def block_for(text: str) -> str:
    """Returns the name of the block that fits the text of a step."""
    recipe = recipe_for(text)
    if recipe is not None:
        return recipe.block_name
    return next((name for word, name in _BY_WORD if word.search(text)), "AI Text Generator")


def block_named(name: str) -> Block:
    """Returns the block with a name that this platform has. Raises KeyError."""
    return _BY_NAME[name]


def chained(name: str, text: str) -> Block:
    """Returns the block for a step that needs nothing but an instruction, whatever name the step gives."""
    if name.startswith(_AGENT):
        return _BY_NAME["Run Agent"]
    if name in _CHAINED:
        return _BY_NAME[name]
    if name.endswith("Trigger"):
        return _BY_NAME[EVENT]
    fitting = block_for(text)
    return _BY_NAME[fitting if fitting in _CHAINED else "AI Text Generator"]

"""The blocks that agents consist of, and the choice of a block for a description."""

from __future__ import annotations

import re
import uuid

NAMESPACE = uuid.UUID("5d1c6f0e-6f0b-4d9e-9f0a-6a2f3c1b7e42")
MANUAL = "Manual Trigger"
SCHEDULE = re.compile(
    r"\b(every(day)?( other)?( \w+)?( at \S+)?|each( \w+)?|daily|hourly|weekly|monthly|yearly|schedule\w*"
    r"|on (mon|tues|wednes|thurs|fri|satur|sun)days?|at \d\S*|in the morning|at night)\b",
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


def block_for(text: str) -> str:
    """Returns the name of the block that fits the text of a step."""
    return next((name for word, name in _BY_WORD if word.search(text)), "AI Text Generator")


def block_id(name: str) -> str:
    """Returns the id of a block, which never changes."""
    return str(uuid.uuid5(NAMESPACE, f"block {name}"))

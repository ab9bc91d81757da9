"""The title of a session, made from its first message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from backend.chat.models import NewMessage, Role, TextPart, Usage
from backend.errors import ProviderError
from executor.llm.events import Finished, TextDelta, UsageSoFar
from executor.llm.model import Model, Prompt
from executor.llm.think_tags import without_reasoning

logger = logging.getLogger(__name__)

MAX_TITLE = 60  # characters
UNTITLED = "New conversation"
TIME_LIMIT = 30.0  # seconds
MAX_TOKENS = 2_000
"""Tokens for reasoning and title. A model that reasons about the title uses some hundred; others stop after a few."""
_SYSTEM = (
    "Write a title of two to six words for a conversation that begins with the user's message, in the language of that "
    "message. Answer with the title alone: no quotes, no full stop, no explanation. Do not answer the message."
)


async def make_title(
    model: Model | None,
    text: str,
    *,
    time_limit: float = TIME_LIMIT,
    count: Callable[[Usage], None] = lambda used: None,
) -> str:
    """Returns a title of 1 to MAX_TITLE characters. Calls `count` with the tokens as often as the provider tells them.

    Falls back to the first words of `text` without a model, on an error, and after `time_limit` seconds.
    """
    if model is None:
        return first_words(text)
    prompt = Prompt(_SYSTEM, (NewMessage(Role.USER, (TextPart(text[:2_000]),)),), max_output_tokens=MAX_TOKENS)
    said = ""
    try:
        async with asyncio.timeout(time_limit), aclosing(model.stream(prompt)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    said += event.text
                elif isinstance(event, UsageSoFar | Finished):
                    count(event.usage)
    except (ProviderError, TimeoutError) as error:
        logger.info("model gave no title: %s", type(error).__name__)
        return first_words(text)
    title = first_words(without_reasoning(said).strip().split("\n")[0].strip(" \t\"'“”«»*#.`"))
    return first_words(text) if title == UNTITLED else title


def first_words(text: str) -> str:
    """Returns the beginning of the text on one line, cut between two words if possible. Never empty."""
    line = " ".join(text.split())
    if len(line) <= MAX_TITLE:
        return line or UNTITLED
    head = line[: MAX_TITLE - 1]
    words = head if line[MAX_TITLE - 1] == " " else head.rpartition(" ")[0]
    return (words or head).rstrip(" ,;:.-") + "…"

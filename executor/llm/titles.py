"""The title of a session, made of its first message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from backend.chat.models import NewMessage, Role, TextPart
from backend.config import Settings
from backend.errors import ProviderError
from executor.llm.events import TextDelta
from executor.llm.model import Model, Prompt, open_model

logger = logging.getLogger(__name__)

MAX_TITLE = 60
UNTITLED = "New conversation"
TIME_LIMIT = 10.0
_SYSTEM = (
    "Write a title of two to six words for a conversation that begins with the user's message, in the language of that "
    "message. Answer with the title alone: no quotes, no full stop, no explanation. Do not answer the message."
)


@asynccontextmanager
async def open_title_model(settings: Settings) -> AsyncIterator[Model | None]:
    """The model of CHAT_TITLE_MODEL, at the provider of the chat's model; None when it is not set."""
    if not settings.chat_title_model:
        yield None
        return
    async with open_model(settings, name=settings.chat_title_model) as model:
        yield model


async def make_title(model: Model | None, text: str, *, time_limit: float = TIME_LIMIT) -> str:
    """At most MAX_TITLE characters, never empty: what the model says, else (no model, an error, too slow) the message's
    first words."""
    if model is None:
        return first_words(text)
    prompt = Prompt(_SYSTEM, (NewMessage(Role.USER, (TextPart(text[:2_000]),)),), max_output_tokens=20)
    said = ""
    try:
        async with asyncio.timeout(time_limit), aclosing(model.stream(prompt)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    said += event.text
    except (ProviderError, TimeoutError) as error:
        logger.info("no title from the model: %s", type(error).__name__)
        return first_words(text)
    title = first_words(said.strip().split("\n")[0].strip(" \t\"'“”«»*#.`"))
    return first_words(text) if title == UNTITLED else title


def first_words(text: str) -> str:
    """The beginning of the text on one line, cut at a word where there is one to cut at."""
    line = " ".join(text.split())
    if len(line) <= MAX_TITLE:
        return line or UNTITLED
    head = line[: MAX_TITLE - 1]
    words = head if line[MAX_TITLE - 1] == " " else head.rpartition(" ")[0]
    return (words or head).rstrip(" ,;:.-") + "…"

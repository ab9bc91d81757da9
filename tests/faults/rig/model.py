"""The fake model: a question says what its answer must be, so that a gap or a repeat shows in the text itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fakes.running import fake_server

_COUNT = re.compile(r"^/count (\S+) (\d+)", re.MULTILINE)


def question(name: str, chunks: int, delay_ms: int) -> str:
    """Asks for `name:0;name:1;…`, with that delay before each chunk, whatever was asked before and never answered."""
    return f"/afresh\n/count {name} {chunks} {delay_ms}"


def answer_to(text: str) -> str:
    """What the model says to a question, in all of its steps."""
    return "".join(f"{name}:{n};" for name, count in _COUNT.findall(text) for n in range(int(count)))


@asynccontextmanager
async def model_settings() -> AsyncIterator[dict[str, str]]:
    """A provider in a process of its own, as the settings that executors find it by."""
    async with fake_server("openai") as url:
        yield {"CHAT_PROVIDER": "openai", "CHAT_BASE_URL": url, "CHAT_API_KEY": "of-the-rig", "CHAT_MODEL": "fake"}
